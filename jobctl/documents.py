"""Reading what a user wrote: YAML documents, `--set` assignments, a team's defaults, and how they are merged.

Nothing here knows what the keys mean: schema.py does.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobctl.errors import UsageError

if TYPE_CHECKING:
    import yaml

TEAM_FILE = "jobctl.yaml"
_HALF = re.compile("[\ud800-\udfff]")
# The API server reads the JSON that Helm applies as YAML: U+0085 comes out as a blank, the others are refused.
_UNCARRIED = re.compile("[\x7f-\x9f\ufffe\uffff]")
# YAML 1.1, which PyYAML reads, takes 1e-4 for text; Helm takes it for a number, as people mean it.
FLOAT = re.compile(r"^[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)[eE][-+]?[0-9]+$")
LIST_ITEM = "[]"  # stands in a path for any item of a list
DEEPEST = 50
MOST_VALUES = 100_000  # aliases make a few lines grow beyond all bounds

Keys = tuple[str, ...]  # the keys from the document down to a value
IsText = Callable[[Keys], bool]
_TAG = "tag:yaml.org,2002:"
_KNOWN_TAGS = {_TAG + name for name in ("null", "bool", "int", "float", "str", "map", "seq", "merge", "value")}


@cache
def _loader() -> type:
    """A safe loader that leaves dates as text."""
    import yaml

    class Loader(yaml.CSafeLoader):
        pass

    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != _TAG + "timestamp"]
        for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver(_TAG + "float", FLOAT, list("-+.0123456789"))
    return Loader


def parse(text: str, source: str, is_text: IsText = lambda path: False) -> list[dict[str, Any]]:
    """The documents of a YAML text, empty ones left out. `source` is what messages call it.

    Where `is_text` says so of a path, key and value are what stands there, whatever YAML takes them for: `7130e52`,
    `yes`. Only null is null everywhere. Raises UsageError, with the line, for what is not YAML, for a
    duplicate key and for a document that is no mapping.
    """
    import yaml

    found = []
    text = _without_surrogates(text)
    try:
        _check_depth(text)
        for number, node in enumerate(yaml.compose_all(text, Loader=_loader()), 1):
            document = None if node is None else _Construction(is_text).value(node, ())
            if document is None:
                continue
            if not isinstance(document, dict):
                raise UsageError(
                    f"{source}: document {number} is a {_kind_of(document)}, but a spec is a mapping of keys to values."
                )
            found.append(document)
    except yaml.YAMLError as error:
        raise UsageError(f"{source} is not YAML that jobctl can read: {_where(error)}.") from error
    return found


def _without_surrogates(text: str) -> str:
    r"""JSON with `\ud83d\ude80` as YAML with `\U0001F680`: JSON's halves of a character are none to YAML."""
    if not (_HALVES.search(text) and text.lstrip().startswith("{")):
        return text
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _ESCAPE.sub(lambda found: f"\\U{_whole(found[1], found[2]):08X}" if found[1] else found[0], text)


_HALVES = re.compile(r"\\u[dD][89abAB]")
_ESCAPE = re.compile(r"\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\.")


def _whole(high: str, low: str) -> int:
    return 0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00


def _check_depth(text: str) -> None:
    """Raises yaml.YAMLError for what is nested so deeply that the C parser's recursion would end this process."""
    import yaml

    depth = 0
    for event in yaml.parse(text, Loader=_loader()):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise _complaint(f"more than {DEEPEST} levels are more than a spec has", event)


class _Construction:
    """Makes values of the nodes of one document."""

    def __init__(self, is_text: IsText) -> None:
        import yaml

        self._is_text = is_text
        self._yaml = yaml.constructor.SafeConstructor()
        self._values = 0
        self._flattened: set[int] = set()  # an alias leads to a node again

    def value(self, node: yaml.Node, path: Keys) -> Any:
        """Raises yaml.YAMLError with a place for what has no meaning in a spec."""
        import yaml

        self._values += 1
        if len(path) > DEEPEST or self._values > MOST_VALUES:
            raise _complaint("aliases make more levels or values of this than a spec has", node)
        if node.tag not in _KNOWN_TAGS:
            raise _complaint(f"could not determine a constructor for the tag {node.tag!r}", node)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, LIST_ITEM)) for item in node.value]
        assert isinstance(node, yaml.ScalarNode)
        if self._is_text(path) and node.tag != _TAG + "null":
            return node.value
        return self._scalar(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Keys) -> dict[str, Any]:
        if id(node) not in self._flattened:
            self._flattened.add(id(node))
            _check_twice(node)
            self._yaml.flatten_mapping(node)  # what `<<` brings comes first, so that a key of its own wins
            self._check_keys(node, path)
            node.value = list({key.value: (key, item) for key, item in node.value}.values())
        return {key.value: self.value(item, (*path, key.value)) for key, item in node.value}

    def _check_keys(self, node: yaml.MappingNode, path: Keys) -> None:
        for key, _ in node.value:
            if not isinstance(key.value, str):
                raise _complaint("a key is no text but a list or a mapping", key)
            is_text = key.tag in (_TAG + "str", _TAG + "value")
            if not is_text and not self._is_text((*path, key.value)):  # in a map of texts it is what was typed
                raise _complaint(f"the key {key.value} is no text: put it in quotes", key)

    def _scalar(self, node: yaml.ScalarNode, path: Keys) -> Any:
        if node.tag in (_TAG + "merge", _TAG + "value"):  # `<<` and `=`, which mean something as keys only
            return node.value
        try:
            value = self._yaml.construct_object(node)
        except (ValueError, KeyError) as error:  # !!int x, !!bool x; a number of thousands of digits
            raise _complaint(f"{_short(node.value)} is no {node.tag.removeprefix(_TAG)}", node) from error
        if isinstance(value, float) and not math.isfinite(value):
            raise _complaint(f"{'.'.join(path)} is {value}: it must be a finite number", node)
        return value


def _check_twice(node: yaml.MappingNode) -> None:
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key.value, str):
            if key.value in seen:
                raise _complaint(f"the key {key.value!r} stands there twice", key)
            seen.add(key.value)


def _complaint(said: str, node: Any) -> yaml.YAMLError:
    """An error as YAML's own, with the place of a node or an event."""
    import yaml

    return yaml.constructor.ConstructorError(None, None, said, node.start_mark)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _where(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    said = getattr(error, "problem", None) or " ".join(str(error).split())
    return f"line {mark.line + 1}, column {mark.column + 1}: {said}" if mark else str(said)


def _kind_of(document: object) -> str:
    return "list" if isinstance(document, list) else "text" if isinstance(document, str) else "single value"


def read(path: Path, is_text: IsText = lambda path: False) -> list[dict[str, Any]]:
    """The documents of a YAML file, as `parse` reads them.

    Raises UsageError where it can't be read, is not YAML, or holds no document.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is no text in UTF-8 (byte {error.start}): is it a spec?") from error
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}.") from error
    documents = parse(text, str(path), is_text)
    if not documents:
        raise UsageError(f"{path} holds no document: a spec has at least a `kind`.")
    return documents


def fault_of(text: str) -> str | None:
    """Why a text can't be written as UTF-8, sent to Kubernetes or handed to a process, as the end of a sentence."""
    if "\0" in text:
        return "holds U+0000, which ends a text where a process reads it"
    if odd := _UNCARRIED.search(text):
        return f"holds U+{ord(odd[0]):04X}, a control character that the Kubernetes API refuses or changes"
    odd = _HALF.search(text)
    return odd and f"holds U+{ord(odd[0]):04X}, which is half a character or a byte that is not UTF-8"


def assigned_key(text: str) -> Keys:
    r"""`settings.lr=1e-4` as ("settings", "lr"); `\.` is a dot inside a key.

    Raises UsageError where there is no `=` or no key.
    """
    key, equals, _ = text.partition("=")
    if fault := fault_of(text):
        raise UsageError(f"--set: {key if key.isprintable() else ascii(key)} {fault}.")
    path = tuple(part.replace("\\.", ".").strip() for part in re.split(r"(?<!\\)\.", key))
    if not equals or not all(path):
        raise UsageError(f"--set {text!r} is no assignment: write KEY=VALUE, such as --set settings.steps=500.")
    return path


def assignment(text: str, is_text: IsText = lambda path: False) -> dict[str, Any]:
    """`settings.lr=1e-4` as {"settings": {"lr": 0.0001}}.

    Where text is meant it is the value as it was typed, but for a bare `null`. Anything else is a YAML scalar, list or
    mapping in flow style. Raises UsageError.
    """
    path, value = assigned_key(text), text.partition("=")[2]
    return reduce(lambda inner, part: {part: inner}, reversed(path), _assigned(path, value, is_text))


def _assigned(path: Keys, value: str, is_text: IsText) -> Any:
    if is_text(path):
        return None if value == "null" else value
    source = f"--set {'.'.join(path)}={value!r}"
    parsed = parse(f"value: {value}", source, lambda inner: is_text((*path, *inner[1:])))[0]
    if set(parsed) != {"value"}:
        raise UsageError(f"{source} holds more than one value: say --set once for each.")
    return parsed["value"]


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


def team_files(
    beside: Path, environ: Mapping[str, str] = os.environ, is_text: IsText = lambda path: False
) -> list[tuple[Path, dict[str, Any]]]:
    """A team's defaults: `jobctl.yaml` in the user's config directory, then the one in `beside`, which wins.

    Raises UsageError where such a file can't be read or holds more than one document.
    """
    config = Path(environ.get("XDG_CONFIG_HOME") or Path(environ.get("HOME", "~")).expanduser() / ".config")
    files = [path for path in (config / "jobctl" / TEAM_FILE, beside / TEAM_FILE) if path.is_file()]
    return [(path, _team_file(path, is_text)) for path in files]


def _team_file(path: Path, is_text: IsText) -> dict[str, Any]:
    documents = read(path, is_text)
    if len(documents) > 1:
        raise UsageError(f"{path} holds {len(documents)} documents: a team's defaults are one.")
    for key in ("name", "kind", "from"):
        if key in documents[0]:
            raise UsageError(f"{path} sets {key}, which belongs to one job: write it into that job's spec.")
    return documents[0]


def paths(value: Any, path: Keys = ()) -> list[str]:
    """The dotted keys of a document's values, fit to be printed."""
    if not isinstance(value, Mapping) or not value:
        return [key if (key := ".".join(path)).isprintable() else ascii(key)]
    return [found for key, item in value.items() for found in paths(item, (*path, key))]
