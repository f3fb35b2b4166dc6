"""Reading what a user wrote: YAML documents, `--set` assignments, a team's defaults, and how they are merged.

Nothing here knows what the keys mean: spec.py does.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from functools import cache, reduce
from pathlib import Path
from typing import Any

from jobctl.errors import UsageError

TEAM_FILE = "jobctl.yaml"
# YAML 1.1, which PyYAML reads, takes 1e-4 for text; Helm takes it for a number, as people mean it.
FLOAT = re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")


@cache
def _loader() -> type:
    """A safe loader that refuses duplicate keys and leaves dates as text."""
    import yaml

    class Loader(yaml.CSafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key_node, _ in node.value:
                key = str(key_node.value)
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} stands there twice", key_node.start_mark
                    )
                seen.add(key)
            return super().construct_mapping(node, deep=deep)

    timestamp = "tag:yaml.org,2002:timestamp"
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != timestamp]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
    return Loader


def parse(text: str, source: str) -> list[dict[str, Any]]:
    """The documents of a YAML text, empty ones left out. `source` is what messages call it.

    Raises UsageError, with the line, for what is not YAML, for a duplicate key and for a document that is no mapping.
    """
    import yaml

    try:
        documents = list(yaml.load_all(text, Loader=_loader()))
    except yaml.YAMLError as error:
        raise UsageError(f"{source} is not YAML that jobctl can read: {_where(error)}.") from error
    found = []
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        if not isinstance(document, dict):
            raise UsageError(
                f"{source}: document {number} is a {_kind_of(document)}, but a spec is a mapping of keys to values."
            )
        _refuse_odd(document, (), f"{source}, document {number}")
        found.append(document)
    return found


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}" if mark else str(said)


def _kind_of(document: object) -> str:
    return "list" if isinstance(document, list) else "text" if isinstance(document, str) else "single value"


def _refuse_odd(value: object, path: tuple[str, ...], source: str) -> None:
    """Refuse what JSON, and so Helm, cannot carry: keys that are no text, numbers that are none."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise UsageError(
                    f"{source}: the key {key!r} {'in ' + '.'.join(path) if path else ''} is no text: put it in quotes."
                )
            _refuse_odd(item, (*path, key), source)
    elif isinstance(value, list):
        for item in value:
            _refuse_odd(item, path, source)
    elif isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{source}: {'.'.join(path)} is {value}: it must be a finite number.")


def read(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file. Raises UsageError where it can't be read, is not YAML, or holds no document."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8 (byte {error.start}): is it a spec?") from error
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}.") from error
    documents = parse(text, str(path))
    if not documents:
        raise UsageError(f"{path} holds no document: a spec has at least a `kind`.")
    return documents


def assignment(text: str) -> dict[str, Any]:
    r"""`settings.lr=1e-4` as {"settings": {"lr": 0.0001}}; `\.` is a dot inside a key.

    The value is a YAML scalar, list or mapping in flow style. Raises UsageError where there is no `=` or no key.
    """
    key, equals, value = text.partition("=")
    parts = [part.replace("\\.", ".").strip() for part in re.split(r"(?<!\\)\.", key)]
    if not equals or not all(parts):
        raise UsageError(f"--set {text!r} is no assignment: write KEY=VALUE, such as --set settings.steps=500.")
    parsed = parse(f"value: {value}", f"--set {text!r}")[0]
    if set(parsed) != {"value"}:
        raise UsageError(f"--set {text!r} holds more than one value: say --set once for each.")
    return reduce(lambda inner, part: {part: inner}, reversed(parts), parsed["value"])


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Both, mappings merged at every depth; otherwise `over` wins. Neither is changed."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return merged


def merge_all(layers: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The layers merged, later ones winning."""
    return reduce(merge, layers, {})


def team_defaults(beside: Path, environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """A team's defaults: `jobctl.yaml` in the user's config directory, then the one in `beside`, which wins.

    Raises UsageError where such a file can't be read or holds more than one document.
    """
    config = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config")
    files = [path for path in (config / "jobctl" / TEAM_FILE, beside / TEAM_FILE) if path.is_file()]
    return merge_all(_team_file(path) for path in files)


def _team_file(path: Path) -> dict[str, Any]:
    documents = read(path)
    if len(documents) > 1:
        raise UsageError(f"{path} holds {len(documents)} documents: a team's defaults are one.")
    for key in ("name", "kind", "from"):
        if key in documents[0]:
            raise UsageError(f"{path} sets {key}, which belongs to one job: write it into that job's spec.")
    return documents[0]
