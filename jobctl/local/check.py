"""Holds a manifest against the tables of fields.py."""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from jobctl.errors import RefusedError, nearest
from jobctl.local.fields import KINDS, Field, Treatment

_NAMES = {str: "a string", int: "a whole number", bool: "true or false", dict: "an object", list: "a list"}


@lru_cache
def _table(kind: tuple[str, str]) -> tuple[dict[str, Field], dict[str, set[str]]]:
    """The fields of a kind by path, and the names that may stand below each inner path."""
    fields = {field.path: field for field in KINDS[kind]}
    inner: dict[str, set[str]] = {}
    for path in fields:
        parts = path.split(".")
        for depth in range(len(parts)):
            inner.setdefault(".".join(parts[:depth]), set()).add(parts[depth].removesuffix("[]"))
    return fields, inner


def check(document: dict[str, Any]) -> None:
    """Raise RefusedError, naming the field, unless every field is translated, ignored or harmless."""
    kind = (str(document.get("apiVersion")), str(document.get("kind")))
    if kind not in KINDS:
        known = ", ".join(name for _, name in KINDS)
        raise RefusedError(
            f"The local backend can't run a {kind[1]} ({kind[0]}): it knows {known}. "
            "Remove it or use --backend kubernetes."
        )
    name = f"{kind[1]} {(document.get('metadata') or {}).get('name', '?')}"
    fields, inner = _table(kind)
    for key, value in document.items():
        if key not in ("apiVersion", "kind", "status"):
            _check(name, key, key, value, fields, inner)


def _check(name: str, path: str, shown: str, value: Any, fields: dict[str, Field], inner: dict[str, set[str]]) -> None:
    if value is None:  # as the API server: null is absent
        return
    field = fields.get(path)
    if field is not None:
        _check_field(name, shown, value, field)
        if path not in inner:
            return
    elif path not in inner and f"{path}[]" not in inner:
        parent, _, key = path.rpartition(".")
        raise RefusedError(f"{name}: unknown field {shown}{nearest(key, inner.get(parent, set()))}.")
    if field is not None and field.treatment is Treatment.IGNORED:
        for key, child in _children(name, path, shown, value, fields, inner):
            if key in fields:
                _check(name, key, *child, fields, inner)
        return
    for key, child in _children(name, path, shown, value, fields, inner):
        _check(name, key, *child, fields, inner)


def _children(
    name: str, path: str, shown: str, value: Any, fields: dict[str, Field], inner: dict[str, set[str]]
) -> Iterator[tuple[str, tuple[str, Any]]]:
    expected = list if f"{path}[]" in inner else dict
    if not isinstance(value, expected):
        raise RefusedError(f"{name}: {shown} must be {_NAMES[expected]}, not {value!r}.")
    if isinstance(value, dict):
        for key, child in value.items():
            yield f"{path}.{key}", (f"{shown}.{key}", child)
        return
    for number, item in enumerate(value):
        if not isinstance(item, dict):
            raise RefusedError(f"{name}: {shown}[{number}] must be an object, not {item!r}.")
        for key, child in item.items():
            yield f"{path}[].{key}", (f"{shown}[{number}].{key}", child)


def _check_field(name: str, shown: str, value: Any, field: Field) -> None:
    if field.treatment is Treatment.REFUSED:
        if value not in (field.only or ()):
            raise RefusedError(
                f"{name}: the local backend refuses {shown}: {field.note}. Remove it or use --backend kubernetes."
            )
        return
    if isinstance(field.kind, type) and (
        not isinstance(value, field.kind) or (isinstance(value, bool) and field.kind is int)
    ):
        raise RefusedError(f"{name}: {shown} must be {_NAMES[field.kind]}, not {value!r}.")
    if field.only is not None and value not in field.only:
        allowed = " or ".join(repr(choice) for choice in field.only)
        raise RefusedError(f"{name}: the local backend takes {allowed} for {shown}, not {value!r}.")
