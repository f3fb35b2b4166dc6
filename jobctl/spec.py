"""What a user asks for: one job, validated against the chart's own schema before anything is started."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from jobctl import documents
from jobctl.chart import chart_directory, profile_names, read_yaml
from jobctl.errors import UsageError, nearest

Kind = Literal["collect", "train", "eval"]
KINDS: tuple[Kind, ...] = ("collect", "train", "eval")
NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
NAME_LENGTH = 50  # what the names of pods, which add revision and index, leave of a DNS label's 63 characters
# Keys of the values that no spec has: Helm's, and the one that jobctl adds itself.
NOT_IN_SPECS = ("global",)


@dataclass(frozen=True)
class JobSpec:
    """One job. `asked` holds the keys as given; `full` those and the chart's defaults, numbers as numbers."""

    asked: Mapping[str, Any]
    full: Mapping[str, Any]
    source: str

    @property
    def name(self) -> str:
        return self.full["name"]

    @property
    def kind(self) -> Kind:
        return self.full["kind"]

    @property
    def task(self) -> str:
        return self.full["task"]

    @property
    def gpu(self) -> str:
        return self.full["gpu"]

    @property
    def replicas(self) -> int:
        return self.full["replicas"]

    @property
    def gpus_per_replica(self) -> int:
        return self.full["gpusPerReplica"]

    @property
    def preset(self) -> str:
        return self.full["preset"]

    @property
    def data(self) -> str:
        """The episodes' path on the volume."""
        return self.full["data"] or f"datasets/{self.name}"

    @property
    def from_run(self) -> str | None:
        return self.full["from"]

    @property
    def claim(self) -> str:
        return self.full["volume"]["claim"]

    @property
    def settings(self) -> Mapping[str, Any]:
        """The settings that were asked for: the task's own defaults are the worker's."""
        return self.full["settings"]


def read_specs(
    file: Path | None,
    *,
    kind: str | None = None,
    flags: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
) -> list[JobSpec]:
    """The jobs of a spec file (None: one job of flags alone), in order.

    Later wins: the team's defaults, the file's documents, `flags` (keys of the spec), `assignments` (`--set`), which
    both hold for every document. Without a name a job is called after its kind. Raises UsageError.
    """
    found = documents.read(file) if file else [{}]
    team = documents.team_defaults(file.parent if file else Path(), environ)
    over = documents.merge_all([flags or {}, *map(_assignment, assignments)])
    specs = []
    for number, document in enumerate(found, 1):
        source = _source(file, number if len(found) > 1 else None)
        if kind and document.get("kind", kind) != kind:
            raise UsageError(f"{source} is a {document['kind']} job, not {kind}: leave {kind} out of the command.")
        asked = documents.merge_all([team, document, {"kind": kind} if kind else {}, over])
        specs.append(validate(asked, source))
    _refuse_same_names(specs)
    return specs


def _assignment(text: str) -> dict[str, Any]:
    """One `--set`; `steps=400` is short for `settings.steps=400` where only a setting has that name."""
    assigned = documents.assignment(text)
    (key,) = assigned
    return {"settings": assigned} if key in setting_names() and key not in read_schema()["properties"] else assigned


def _source(file: Path | None, number: int | None) -> str:
    if not file:
        return "the command line"
    return f"{file}, document {number}" if number else str(file)


def _refuse_same_names(specs: Iterable[JobSpec]) -> None:
    seen: dict[str, JobSpec] = {}
    for spec in specs:
        other = seen.setdefault(spec.name, spec)
        if other is not spec:
            raise UsageError(
                f"{other.source} and {spec.source} both have the name {spec.name!r}: each job needs its own."
            )


def validate(asked: Mapping[str, Any], source: str = "the spec") -> JobSpec:
    """The job that these keys ask for. Raises UsageError with one sentence for each thing that is wrong."""
    asked = dict(asked)
    problems = list(_kind_problems(asked))
    if problems:  # all that follows depends on the kind
        raise _refusal(problems, source)
    asked.setdefault("name", asked["kind"])
    defaults = read_defaults()
    values = {key: value for key, value in asked.items() if key != "name"}
    numbers = _with_numbers(values, _root(values, defaults))
    full = documents.merge(defaults, numbers) | {"name": asked["name"]}
    problems += _name_problems(asked["name"], full)
    problems += _unknown_keys(asked)
    problems += _schema_problems({"task": defaults["task"]} | numbers)
    problems += _other_problems(full)
    if problems:
        raise _refusal(problems, source)
    return JobSpec(asked=asked, full=full, source=source)


def _refusal(problems: Sequence[str], source: str) -> UsageError:
    unique = list(dict.fromkeys(problems))
    return UsageError("\n".join(f"{source}: {problem}" for problem in unique))


@cache
def read_schema() -> dict[str, Any]:
    """The chart's values.schema.json: the one schema that Helm and jobctl both hold a job against."""
    return json.loads((chart_directory() / "values.schema.json").read_text(encoding="utf-8"))


def setting_names() -> set[str]:
    """Every setting of any task and kind: scripts/schemas.py names their schemas TASK.KIND."""
    nodes = [node for title, node in read_schema()["$defs"].items() if "." in title]
    return {name for node in nodes for name in node.get("properties", {})}


@cache
def read_defaults() -> dict[str, Any]:
    """The chart's values.yaml: every key with its default."""
    return read_yaml(chart_directory() / "values.yaml")


def _kind_problems(asked: Mapping[str, Any]) -> Iterable[str]:
    kind = asked.get("kind")
    if kind is None:
        yield "kind is missing: collect, train or eval."
    elif kind not in KINDS:
        yield f"kind is {kind!r}{nearest(str(kind), KINDS)}."


def _name_problems(name: object, full: Mapping[str, Any]) -> Iterable[str]:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        yield f"name is {name!r}, which is no DNS label: use lower-case letters, digits and '-' between them."
    elif len(name) > NAME_LENGTH:
        yield f"name {name!r} has {len(name)} characters: at most {NAME_LENGTH} fit into the names of its pods."
    elif full["kind"] == "train" and isinstance(full["replicas"], int) and full["replicas"] > 1 and name[0].isdigit():
        yield f"name {name!r} begins with a digit: replicas that train together need one that begins with a letter."


def _unknown_keys(asked: Mapping[str, Any]) -> Iterable[str]:
    for key in NOT_IN_SPECS:
        if key in asked:
            yield f"a spec has no key {key!r}{nearest(key, read_defaults())}."


def _other_problems(full: Mapping[str, Any]) -> Iterable[str]:
    """What the schema cannot say; the chart says the same to those who use Helm alone."""
    if full["gpu"] not in profile_names():
        yield f"there is no profile {full['gpu']!r}{nearest(str(full['gpu']), profile_names())}."
    if full["kind"] == "eval" and not full["from"]:
        yield "from is missing: eval judges the weights of a run, so name one (from: RUN)."
    if full["kind"] == "collect" and full["from"]:
        yield "from has no meaning for collect: it starts from no run's weights; leave it out."
    if full["kind"] == "train" and full["gates"]:
        yield "gates have no meaning for train: state them in collect (data) and eval (quality)."
    for name in sorted(set(full["env"] or {}) & set(full["secretEnv"] or {})):
        yield f"{name} stands in both env and secretEnv: keep one."


# --- the schema ---------------------------------------------------------------------------------------------------


def _resolve(node: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = node.get("$ref")
    return {**read_schema()["$defs"][reference.removeprefix("#/$defs/")], **node} if reference else node


def _root(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with the settings of this task and kind in their place."""
    schema = read_schema()
    settings = schema["$defs"].get(f"{values.get('task', defaults['task'])}.{values['kind']}", {})
    return schema | {"properties": schema["properties"] | {"settings": settings}}


def _with_numbers(value: Any, node: Mapping[str, Any]) -> Any:
    """The value with numeric text made a number wherever the schema takes numbers, as the chart does before hashing."""
    node = _resolve(node)
    if isinstance(value, dict):
        other = node.get("additionalProperties")
        return {
            key: _with_numbers(item, node.get("properties", {}).get(key) or (other if isinstance(other, dict) else {}))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_with_numbers(item, node.get("items", {})) for item in value]
    if isinstance(value, str) and _is_number(node):
        if not re.match(node["pattern"], value):
            return value
        return int(value) if "integer" in node["type"] else float(value)
    return value


def _is_number(node: Mapping[str, Any]) -> bool:
    """Whether text stands for a number here: scripts/schemas.py gives such nodes a pattern of digits."""
    types = node.get("type", [])
    return (
        isinstance(types, list)
        and bool({"integer", "number"} & set(types))
        and node.get("pattern", "").startswith("^[-+]?")
    )


def _schema_problems(values: Mapping[str, Any]) -> list[str]:
    import jsonschema_rs

    validator = jsonschema_rs.validator_for(read_schema())
    return [_sentence(error) for error in validator.iter_errors(dict(values))]


def _sentence(error: Any) -> str:
    """One sentence of a validation error: what was given, and what is possible."""
    path = ".".join(str(part) for part in error.instance_path)
    node = _node_at(error.schema_path)
    kind = error.kind
    wording = WORDINGS.get(kind.name)
    if wording:
        return wording(path, error.instance, node, kind)
    return f"{path or 'the spec'}: {error.message}."


def _node_at(schema_path: Sequence[str | int]) -> Mapping[str, Any]:
    """The schema that holds the keyword at the end of this path."""
    node: Any = read_schema()
    for part in list(schema_path)[:-1]:
        node = node[part]
    return node if isinstance(node, dict) else {}


def _unexpected(path: str, _: Any, node: Mapping[str, Any], kind: Any) -> str:
    known = set(node.get("properties", {}))
    if not path:
        known = known - {"global", "planned"} | {"name"}
    place = path or "a spec"

    def hint(key: str) -> str:
        misplaced = not path and key in setting_names()
        return f": it is a setting, write settings.{key}" if misplaced else nearest(key, known)

    return " ".join(f"{place} has no key {key!r}{hint(key)}." for key in kind.unexpected)


def _wrong_type(path: str, value: Any, _: Mapping[str, Any], kind: Any) -> str:
    types = set(kind.types)
    if {"integer", "number"} & types and "boolean" not in types:
        types.discard("string")  # numbers as text are for Helm
    words = {
        "object": "a mapping",
        "array": "a list",
        "string": "text",
        "number": "a number",
        "integer": "a whole number",
    }
    words |= {"boolean": "true or false", "null": "null"}
    asked = [words[name] for name in words if name in types]
    return f"{path} is {_shown(value)}: it must be {' or '.join(asked)}."


def _no_option(path: str, value: Any, _: Mapping[str, Any], kind: Any) -> str:
    options = [str(option) for option in getattr(kind, "options", None) or [kind.expected_value] if option is not None]
    return f"{path} is {_shown(value)}{nearest(str(value), options)}."


def _no_match(path: str, value: Any, node: Mapping[str, Any], _: Any) -> str:
    if _is_number(node):
        return f"{path} is {_shown(value)}: it must be a {'whole ' if 'integer' in node['type'] else ''}number."
    described = node.get("description", f"it must match {node.get('pattern')}.")
    return f"{path} is {_shown(value)}: {described[0].lower()}{described[1:].rstrip('.')}."


def _bound(words: str) -> Any:
    return lambda path, value, node, kind: f"{path} is {_shown(value)}: it must be {words} {kind.limit}."


def _count(words: str) -> Any:
    return lambda path, value, node, kind: (
        f"{path} has {len(value)} entries or characters: it must have {words} {kind.limit}."
    )


WORDINGS: Mapping[str, Any] = {
    "additionalProperties": _unexpected,
    "type": _wrong_type,
    "enum": _no_option,
    "constant": _no_option,
    "pattern": _no_match,
    "minimum": _bound("at least"),
    "maximum": _bound("at most"),
    "exclusiveMinimum": _bound("more than"),
    "exclusiveMaximum": _bound("less than"),
    "minItems": _count("at least"),
    "maxItems": _count("at most"),
    "minLength": _count("at least"),
    "maxLength": _count("at most"),
    "propertyNames": lambda path, value, node, kind: f"{path}: {kind.error.instance!r} can't be a name there.",
    "required": lambda path, value, node, kind: f"{path} lacks the key {kind.property!r}.",
}


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
