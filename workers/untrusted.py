"""Reading what anybody may have written: a file is a regular one, reached through no link, and no larger than was said;
JSON is no deeper, and its numbers are no longer, than ours ever are.

Standard library only: the supervisor and the reader pod import this.
"""

import errno
import json
import math
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from workers.errors import WorkerError

MAX_JSON_BYTES = 64 * 2**20  # a result or a state with a row for each of a million episodes
RECORD_BYTES = 2**20  # a lease, an attempt, a ledger's entry
MAX_JSON_DEPTH = 32
_LINKS = {errno.ELOOP, errno.ENOTDIR}  # what opening with O_NOFOLLOW and O_DIRECTORY says of a link
_NO_FILES = {errno.EISDIR, errno.ENXIO}  # a directory; a socket

Types = type | tuple[type, ...]


class CorruptError(WorkerError):
    """A file on the volume is not what was published: the message names the file and what is wrong with it."""

    code = 65

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is damaged: {why}")
        self.path = path
        self.why = why

    def __reduce__(self) -> tuple[type["CorruptError"], tuple[Path, str]]:
        return CorruptError, (self.path, self.why)  # between processes: it is made of two arguments, not of its message


def open_below(root: Path, parts: Sequence[str]) -> BinaryIO:
    """Open root/parts[0]/… for reading; `root` may be a link, nothing below. OSError: ELOOP or ENOTDIR say a link."""
    parent = descend(root, parts[:-1])
    try:
        # without O_NONBLOCK a named pipe would hold the reader for ever
        descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    finally:
        os.close(parent)
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), parts[-1])
    return os.fdopen(descriptor, "rb")


def descend(root: Path, parts: Sequence[str]) -> int:
    """A descriptor of the directory root/parts[0]/…, through no link below root."""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def open_file(path: Path, root: Path | None = None) -> BinaryIO:
    """A regular file. Below `root` (its directory, if None) no link is followed.

    Raises FileNotFoundError, or CorruptError if it is something else or a link leads to it.
    """
    root = path.parent if root is None else root
    try:
        file = open_below(root, path.relative_to(root).parts)
    except OSError as error:
        if error.errno in _LINKS:
            raise CorruptError(path, "it is a link, or lies behind one or in no directory") from error
        if error.errno in _NO_FILES:
            raise CorruptError(path, "it is no regular file") from error
        raise
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise CorruptError(path, "it is no regular file")
    return file


def open_to_append(path: Path) -> BinaryIO:
    """A regular file, made if it is not there; unbuffered. OSError for what is something else, or a link."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    file = os.fdopen(os.open(path, flags, 0o666), "ab", buffering=0)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return file


def read_bytes(path: Path, root: Path | None = None, limit: int = MAX_JSON_BYTES) -> bytes:
    """A file's content. Raises as `open_file`, and CorruptError if it has more than `limit` bytes."""
    with open_file(path, root) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CorruptError(path, f"it has more than {limit} bytes")
    return data


def read_json(path: Path, root: Path | None = None, limit: int = MAX_JSON_BYTES) -> Any:
    """Raises as `read_bytes`, and CorruptError if the file is not JSON as `parse_json` wants it."""
    data = read_bytes(path, root, limit)
    try:
        return parse_json(data)
    except ValueError as error:
        raise CorruptError(path, f"it is not JSON ({error})") from error


def read_record(
    path: Path, fields: Mapping[str, Types], root: Path | None = None, limit: int = RECORD_BYTES
) -> dict[str, Any]:
    """A JSON object that has these fields, each of its type (a bool is no int). Raises as `read_json`."""
    value = read_json(path, root, limit)
    if wrong := misfit(value, fields):
        raise CorruptError(path, wrong)
    return value


def misfit(value: Any, fields: Mapping[str, Types]) -> str | None:
    """What keeps a JSON value from being an object with these fields, each of its type; None: nothing."""
    if not isinstance(value, dict):
        return "it holds no JSON object"
    for name, types in fields.items():
        if name not in value:
            return f"it lacks {name!r}"
        if type(value[name]) not in (types if isinstance(types, tuple) else (types,)):
            return f"its {name!r} is of the wrong type"
    return None


def parse_json(data: bytes) -> Any:
    """JSON that somebody has bounded in size; NaN, Infinity and floats beyond their range are None.

    Raises ValueError for what is no JSON, is nested too deep, or has a whole number beyond 64 bits.
    """
    try:
        value = json.loads(data, parse_int=_integer, parse_float=_float, parse_constant=lambda name: None)
    except RecursionError:
        raise ValueError(f"deeper than {MAX_JSON_DEPTH} levels") from None
    if data.count(b"[") + data.count(b"{") > MAX_JSON_DEPTH:
        _require_shallow(value)
    return value


def is_plain_path(name: str) -> bool:
    """Whether it is a path below a directory: relative, without `.` and `..`, of printable characters only."""
    path = PurePosixPath(name)
    return str(path) == name != "." and not path.is_absolute() and ".." not in path.parts and name.isprintable()


def whole_number(text: str) -> int | None:
    """A number that is part of a name: at most nine digits, and ASCII ones (`²` counts as a digit, too)."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 9 else None


def _integer(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= (number := int(text)) < 2**64:
        raise ValueError("a whole number beyond 64 bits")
    return number


def _float(text: str) -> float | None:
    number = float(text)
    return number if math.isfinite(number) else None


def _require_shallow(value: Any) -> None:
    level = [value]
    for _ in range(MAX_JSON_DEPTH + 1):
        inside = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        if not inside:
            return
        level = [item for items in inside for item in items]
    raise ValueError(f"deeper than {MAX_JSON_DEPTH} levels")
