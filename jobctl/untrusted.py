"""What comes from a volume, a pod or an object that anybody may write: read within bounds, and never taken at its word.

One reader for stored and received JSON (`parse`, `read_object`), one way to open a file below a directory that others
write to (`open_below`), and accessors that give a value only where it has the type that is asked for.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from jobctl.errors import JobctlError

MOST_BYTES = 16 * 1024 * 1024  # of one document; a status.json of a hundred indexes has less than one MiB
MOST_DEPTH = 64  # lists and mappings inside each other
MOST_LINE_BYTES = 1024 * 1024
BYTES_A_CONTAINER, BYTES_AN_ITEM = 64, 8  # at the least, in a document of the largest size: 16 MiB of `[]` take 800
MOST_INDEXES = 100_000  # as many as an Indexed Job can have
_LARGEST_INTEGER = 2**128  # seeds, ids, bytes; whatever is larger would not even fit a float's range for long
_SURROGATE = re.compile("[\ud800-\udfff]")
_DIGITS = re.compile(r"[0-9]{1,18}")


class UnreadableError(JobctlError):
    """Something that is there and can't be used: why, as a clause that others put into their sentence."""


def parse(data: bytes | str, most_bytes: int = MOST_BYTES) -> Any:
    """The value of a JSON document that can be printed, compared and encoded again whatever wrote it.

    Numbers without a JSON form (NaN, Infinity, 1e999) and integers of 2^128 or more are None, lone surrogates are
    U+FFFD. Raises UnreadableError where it is no JSON, too long, or nested too deeply.
    """
    if len(data) > most_bytes:
        raise UnreadableError(f"it is longer than {most_bytes:,} bytes")
    if not data:
        raise UnreadableError("it is empty")
    for signs, most in (("[{", most_bytes // BYTES_A_CONTAINER), (",", most_bytes // BYTES_AN_ITEM)):
        if sum(_count(data, sign) for sign in signs) > most:
            raise UnreadableError(f"it has more than {most:,} parts")
    try:
        value = json.loads(data, parse_constant=lambda name: None)
    except RecursionError as error:
        raise UnreadableError(f"it is nested more than {MOST_DEPTH} deep") from error
    except ValueError as error:  # also a broken encoding, and a number of thousands of digits
        raise UnreadableError("it is no JSON") from error
    return _tamed(value)


def _count(data: bytes | str, sign: str) -> int:
    return data.count(sign) if isinstance(data, str) else data.count(sign.encode())


def parse_object(data: bytes | str, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """As `parse`, for a document that must be a mapping."""
    value = parse(data, most_bytes)
    if not isinstance(value, dict):
        raise UnreadableError("it is no JSON object")
    return value


def object_or_none(data: bytes | str, most_bytes: int = MOST_BYTES) -> dict[str, Any] | None:
    """As `parse_object`; None where it can't be read."""
    try:
        return parse_object(data, most_bytes)
    except UnreadableError:
        return None


def read_object(root: Path, *parts: str, most_bytes: int = MOST_BYTES) -> dict[str, Any]:
    """The JSON object in the regular file root/parts[0]/…, opened as `open_below` does.

    Raises FileNotFoundError where it isn't there, UnreadableError where it can't be used.
    """
    try:
        with open_below(root, parts) as file:
            return parse_object(file.read(most_bytes + 1), most_bytes)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UnreadableError(why_unopened(error)) from error


def open_below(root: Path, parts: Sequence[str]) -> BinaryIO:
    """Open the regular file root/parts[0]/… for reading. `root` may be a link; below it none is followed.

    Raises OSError: FileNotFoundError, ELOOP or ENOTDIR for a link or what lies behind one, EISDIR for a directory,
    EINVAL for a pipe, a device or a part that is no plain name. Never waits for a writer.
    """
    parent = _descend(root, parts[:-1])
    try:
        # without O_NONBLOCK a named pipe would hold its reader for ever
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(_plain(parts[-1]), flags, dir_fd=parent)
    finally:
        os.close(parent)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        number = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(number, os.strerror(number), parts[-1])
    return os.fdopen(descriptor, "rb")


def names_below(root: Path, *parts: str) -> list[str]:
    """The names in a directory, sorted; none where it isn't there, or is a link."""
    try:
        descriptor = _descend(root, parts)
    except OSError:
        return []
    try:
        with os.scandir(descriptor) as entries:
            return sorted(entry.name for entry in entries)
    finally:
        os.close(descriptor)


def is_directory_below(root: Path, *parts: str) -> bool:
    """Whether root/parts[0]/… is a directory that no link leads to."""
    try:
        os.close(_descend(root, parts))
    except OSError:
        return False
    return True


def why_unopened(error: OSError) -> str:
    """Why `open_below` gave no file, in words."""
    reasons = {
        errno.ELOOP: "it is a link, and none is followed there",
        errno.ENOTDIR: "it lies behind a link or in no directory",
        errno.EISDIR: "it is a directory",
        errno.EINVAL: "it is no regular file",
    }
    return reasons.get(error.errno or 0) or error.strerror or "it can't be opened"


def _descend(root: Path, parts: Sequence[str]) -> int:
    """A descriptor of the directory root/parts[0]/…"""
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for part in parts:
        try:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(_plain(part), flags, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    return descriptor


def _plain(part: str) -> str:
    """One name of a path. OSError: what leads elsewhere."""
    if part in ("", ".", "..") or "/" in part or "\0" in part:
        raise OSError(errno.EINVAL, "is no name of a file", part)
    return part


def split_lines(chunks: Iterable[bytes], most_bytes: int = MOST_LINE_BYTES) -> Iterator[bytes]:
    """The lines of a stream as they come, without their ends; a longer one in pieces, a torn last one too."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
        while len(rest) > most_bytes:
            yield rest[:most_bytes]
            rest = rest[most_bytes:]
    if rest:
        yield rest


# ---- values of the type that is asked for


def at(value: Any, *path: str | int) -> Any:
    """value[path[0]][path[1]]…, or None where there is no such thing."""
    for step in path:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and -len(value) <= step < len(value) else None
    return value


def mapping(value: Any, *path: str | int) -> dict[str, Any]:
    """The mapping there, or an empty one."""
    found = at(value, *path)
    return found if isinstance(found, dict) else {}


def mappings(value: Any, *path: str | int) -> list[dict[str, Any]]:
    """The mappings in the list there."""
    found = at(value, *path)
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def text(value: Any, *path: str | int) -> str | None:
    """The text there; None where there is none, or an empty one."""
    found = at(value, *path)
    return found if isinstance(found, str) and found else None


def whole(value: Any, *path: str | int) -> int | None:
    """The integer there, also where it is written as text of at most 18 digits."""
    found = at(value, *path)
    if isinstance(found, str):
        return int(found) if _DIGITS.fullmatch(found) else None
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def number(value: Any, *path: str | int) -> float | None:
    """The finite number there."""
    found = at(value, *path)
    return found if is_number(found) else None


def is_number(value: Any) -> bool:
    """Whether it is a number that arithmetic can be done with: finite, and within a float's range."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) if isinstance(value, float) else abs(value) < _LARGEST_INTEGER


def _tamed(value: Any) -> Any:
    """The value without what Python reads and JSON hasn't. Iterative: as deep as it may be, no stack overflows."""
    root = [value]
    unseen: list[tuple[Any, int]] = [(root, 0)]
    while unseen:
        container, depth = unseen.pop()
        if depth > MOST_DEPTH:
            raise UnreadableError(f"it is nested more than {MOST_DEPTH} deep")
        if isinstance(container, dict):
            for key in [key for key in container if not key.isascii() and _SURROGATE.search(key)]:
                container[_SURROGATE.sub("\ufffd", key)] = container.pop(key)
        for place, item in container.items() if isinstance(container, dict) else enumerate(container):
            if isinstance(item, dict | list):
                unseen.append((item, depth + 1))
            elif isinstance(item, str):
                if not item.isascii() and _SURROGATE.search(item):
                    container[place] = _SURROGATE.sub("\ufffd", item)
            elif isinstance(item, int | float) and not isinstance(item, bool) and not is_number(item):
                container[place] = None
    return root[0]
