"""The chart's values schema as jobctl uses it: the same one that Helm holds a job against, with clearer words.

scripts/schemas.py writes it: the settings of a task and kind are `$defs/TASK.KIND`, numbers may also come as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from jobctl.chart import chart_directory, read_yaml
from jobctl.documents import LIST_ITEM, Keys
from jobctl.errors import nearest


@cache
def read_schema() -> dict[str, Any]:
    """The chart's values.schema.json: the one schema that Helm and jobctl both hold a job against."""
    return json.loads((chart_directory() / "values.schema.json").read_text(encoding="utf-8"))


def setting_names() -> set[str]:
    """Every setting of any task and kind: scripts/schemas.py names their schemas TASK.KIND."""
    return {name for node in _setting_schemas() for name in node.get("properties", {})}


def _setting_schemas() -> list[Mapping[str, Any]]:
    return [node for title, node in read_schema()["$defs"].items() if "." in title]


def setting_default(task: str, kind: str, name: str) -> Any:
    """What a setting is where a spec leaves it open. Raises KeyError for one without a default."""
    return read_schema()["$defs"][f"{task}.{kind}"]["properties"][name]["default"]


@cache
def read_defaults() -> dict[str, Any]:
    """The chart's values.yaml: every key with its default."""
    return read_yaml(chart_directory() / "values.yaml")


def _resolve(node: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = node.get("$ref")
    return {**read_schema()["$defs"][reference.removeprefix("#/$defs/")], **node} if reference else node


@cache
def knobs() -> dict[str, str]:
    """What a spec may set of the environment that begins with JOBCTL_, each with its meaning."""
    return read_yaml(chart_directory() / "knobs.yaml")


@cache
def takes_text(path: Keys) -> bool:
    """Whether a value is what was typed at this path of a spec: text is meant there, or a quantity."""
    if path == ("name",):  # the release's: no key of the chart's values
        return True
    nodes = _nodes_at(path)
    return bool(nodes) and all(map(_is_text, nodes))


def _nodes_at(path: Keys) -> list[Mapping[str, Any]]:
    """What the schema says there. Of a setting each task and kind has its say: which is meant is not known yet."""
    nodes: list[Mapping[str, Any]] = [read_schema()]
    if path[:1] == ("settings",):
        nodes, path = _setting_schemas(), path[1:]
    for part in path:
        nodes = [below for node in nodes if (below := _below(_resolve(node), part)) is not None]
    return nodes


def _below(node: Mapping[str, Any], part: str) -> Mapping[str, Any] | None:
    if part == LIST_ITEM:
        return node.get("items")
    other = node.get("additionalProperties")
    return node.get("properties", {}).get(part, other if isinstance(other, dict) else None)


def _is_text(node: Mapping[str, Any]) -> bool:
    node = _resolve(node)
    if "enum" in node:
        return all(isinstance(option, str | None) for option in node["enum"])
    types = node.get("type", [])
    words = set(types if isinstance(types, list) else [types])
    return "x-text" in node or "x-typed" in node or ("string" in words and words <= {"string", "null"})


def with_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values with numeric text made a number wherever the schema takes numbers, as the chart does before hashing.

    `task` and `kind` say whose settings are meant, and must be there.
    """
    schema = read_schema()
    settings = schema["$defs"].get(f"{values['task']}.{values['kind']}", {})
    return _numbers(values, schema | {"properties": schema["properties"] | {"settings": settings}})


def _numbers(value: Any, node: Mapping[str, Any]) -> Any:
    node = _resolve(node)
    if isinstance(value, Mapping):
        other = node.get("additionalProperties")
        return {
            key: _numbers(item, node.get("properties", {}).get(key) or (other if isinstance(other, dict) else {}))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_numbers(item, node.get("items", {})) for item in value]
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


def problems(values: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that the schema has against these values."""
    import jsonschema_rs

    validator = jsonschema_rs.validator_for(read_schema())
    return [*(_sentence(error) for error in validator.iter_errors(dict(values))), *_no_texts(values, ())]


def _no_texts(value: Any, path: Keys) -> Iterable[str]:
    """Numbers and booleans where text is meant and the schema lets them pass (so that the chart can say what to do)."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _no_texts(item, (*path, str(key)))
    elif isinstance(value, list):
        for item in value:
            yield from _no_texts(item, (*path, LIST_ITEM))
    elif isinstance(value, bool | int | float) and any("x-text" in _resolve(node) for node in _nodes_at(path)):
        yield f"{'.'.join(path)} is {shown(value)}, which is no text: put it in quotes."


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


def _wrong_type(path: str, value: Any, node: Mapping[str, Any], kind: Any) -> str:
    types = set(kind.types)
    if "x-text" in node:
        types -= {"number", "boolean"}
    elif {"integer", "number"} & types and "boolean" not in types:
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
    return f"{path} is {shown(value)}: it must be {' or '.join(asked)}."


def _no_option(path: str, value: Any, _: Mapping[str, Any], kind: Any) -> str:
    options = [str(option) for option in getattr(kind, "options", None) or [kind.expected_value] if option is not None]
    return f"{path} is {shown(value)}{nearest(str(value), options)}."


def _no_match(path: str, value: Any, node: Mapping[str, Any], _: Any) -> str:
    if _is_number(node):
        return f"{path} is {shown(value)}: it must be a {'whole ' if 'integer' in node['type'] else ''}number."
    described = node.get("description", f"it must match {node.get('pattern')}.")
    return f"{path} is {shown(value)}: {_lowered(described)}."


def _bad_name(path: str, name: str, node: Mapping[str, Any]) -> str:
    described = node.get("description")
    return f"{path}: {name!r} can't be a name there{f': {_lowered(described)}' if described else ''}."


def _lowered(description: str) -> str:
    """A description as the end of a sentence."""
    is_shouted = description[1:2].isupper()
    return (description[:1] if is_shouted else description[:1].lower()) + description[1:].rstrip(".")


def _bound(words: str) -> Any:
    return lambda path, value, node, kind: f"{path} is {shown(value)}: it must be {words} {kind.limit}."


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
    "propertyNames": lambda path, value, node, kind: _bad_name(path, kind.error.instance, node),
    "required": lambda path, value, node, kind: f"{path} lacks the key {kind.property!r}.",
}


def shown(value: Any) -> str:
    """A value as its user wrote it: text in quotes, the rest as JSON."""
    return repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
