"""What texts of a spec can't be, though its schema has nothing against them. The chart says the most of it, too."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jobctl.documents import fault_of
from jobctl.schema import knobs

MOST_VARIABLE_BYTES = 131_072  # Linux' MAX_ARG_STRLEN: the name, `=`, the value and a zero
MOST_ENV_BYTES = 1_048_576  # of all variables: a Job has to fit into etcd, and a process' environment onto its stack
MOST_ANNOTATION_BYTES = 262_144  # of all keys and values of one object, as Kubernetes has it


def unencodable(value: object, path: tuple[str, ...] = ()) -> Iterator[str]:
    """A sentence for each text that can't be written as UTF-8 or handed to a process, keys among them."""
    if isinstance(value, str):
        if said := fault_of(value):
            yield f"{_dotted(path)} {said}."
    elif isinstance(value, Mapping):
        for key, item in value.items():
            if isinstance(key, str) and (said := fault_of(key)):
                yield f"{_dotted(path) or 'the spec'} has a key that {said}."
            else:
                yield from unencodable(item, (*path, str(key)))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from unencodable(item, (*path, str(number)))


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(path)


def problems(values: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for each variable that can't be set and each text that is too long. Values of any shape."""
    total = 0
    for key in ("env", "secretEnv"):
        for name, value in _items(values.get(key)):
            if _is_reserved(name):
                yield (
                    f"{key}.{name} can't be set: it tells a pod its place "
                    f"(what can be set of JOBCTL_: {', '.join(sorted(knobs()))})."
                )
            size = len(f"{name}={value}\0".encode()) if isinstance(value, str) else 0
            total += size
            if size > MOST_VARIABLE_BYTES:
                yield (
                    f"{key}.{name} has {size} bytes: a process takes at most {MOST_VARIABLE_BYTES} for a variable's "
                    "name and value, so put it into a file on the volume."
                )
    if total > MOST_ENV_BYTES:
        yield f"env has {total} bytes in all: at most {MOST_ENV_BYTES} fit into a Job."
    pod = values.get("pod")
    annotations = _items(pod.get("annotations")) if isinstance(pod, Mapping) else []
    size = sum(len(f"{key}{value}".encode()) for key, value in annotations)
    if size > MOST_ANNOTATION_BYTES:
        yield f"pod.annotations have {size} bytes in all: at most {MOST_ANNOTATION_BYTES} are allowed."


def _items(value: object) -> list[tuple[str, Any]]:
    return [(str(key), item) for key, item in value.items()] if isinstance(value, Mapping) else []


def _is_reserved(name: str) -> bool:
    """Whether chart, supervisor or Kubernetes set this variable, and nobody else may."""
    if name.startswith("JOBCTL_"):
        return not name.startswith("JOBCTL_TEST_") and name not in knobs()
    return name == "JOB_COMPLETION_INDEX"
