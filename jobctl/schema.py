"""The chart's values schema as jobctl uses it: the same one that Helm holds a job against, with clearer words.

scripts/schemas.py writes it: the settings of a task and kind are `$defs/TASK.KIND`, numbers may also come as text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jobctl.chart import chart_directory, read_yaml
from jobctl.errors import nearest


@cache
def read_schema() -> dict[str, Any]:
    """The chart's values.schema.json: the one schema that Helm and jobctl both hold a job against."""
    return json.loads((chart_directory() / "values.schema.json").read_text(encoding="utf-8"))


def setting_names() -> set[str]:
    """Every setting of any task and kind: scripts/schemas.py names their schemas TASK.KIND."""
    nodes = [node for title, node in read_schema()["$defs"].items() if "." in title]
    return {name for node in nodes for name in node.get("properties", {})}


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
    return f"{path} is {shown(value)}: it must be {' or '.join(asked)}."


def _no_option(path: str, value: Any, _: Mapping[str, Any], kind: Any) -> str:
    options = [str(option) for option in getattr(kind, "options", None) or [kind.expected_value] if option is not None]
    return f"{path} is {shown(value)}{nearest(str(value), options)}."


def _no_match(path: str, value: Any, node: Mapping[str, Any], _: Any) -> str:
    if _is_number(node):
        return f"{path} is {shown(value)}: it must be a {'whole ' if 'integer' in node['type'] else ''}number."
    described = node.get("description", f"it must match {node.get('pattern')}.")
    return f"{path} is {shown(value)}: {described[0].lower()}{described[1:].rstrip('.')}."


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
    "propertyNames": lambda path, value, node, kind: f"{path}: {kind.error.instance!r} can't be a name there.",
    "required": lambda path, value, node, kind: f"{path} lacks the key {kind.property!r}.",
}


def shown(value: Any) -> str:
    """A value as its user wrote it: text in quotes, the rest as JSON."""
    return repr(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
