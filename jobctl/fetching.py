"""Copying what was published from a volume to this machine: names on a list, within the sizes that were published, over
nothing that is there already, through no link.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobctl.errors import JobctlError, NotFoundError, UsageError
from jobctl.untrusted import mapping, text, whole

# All names that a publication's files can have. A manifest is written by anybody who has the volume.
NAMES = re.compile(
    r"result\.json|report\.(?:md|html)|plots/[A-Za-z0-9_-]{1,100}\.png"
    r"|(?:model|optimizer)\.safetensors|state\.json"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class File:
    """One file as its manifest has it."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Copy:
    """One file that is to be fetched: its path below runs/NAME, and where it goes below the directory `root`."""

    path: str
    root: Path
    relative: str
    file: File

    @property
    def target(self) -> Path:
        return self.root / self.relative


def files_of(listed: Any) -> tuple[dict[str, File], list[str]]:
    """The files of a manifest's `files` that may be fetched, by their names, and the names of all others."""
    found, others = {}, []
    for name, entry in sorted(mapping(listed).items()):
        size, digest = whole(entry, "bytes"), text(entry, "sha256") or ""
        if NAMES.fullmatch(name) and size is not None and size >= 0 and _SHA256.fullmatch(digest):
            found[name] = File(size, digest)
        else:
            others.append(name)
    return found, others


def check_targets(copies: Sequence[Copy], *, force: bool) -> None:
    """Raises UsageError before anything is written: for what is there already (unless `force`), for a link or a file
    where a directory is needed, and where there is no room.
    """
    for copy in copies:
        for directory in _directories(copy):
            if directory.is_symlink() or (directory.exists() and not directory.is_dir()):
                raise UsageError(f"{directory} is no directory of its own: fetch to another place.")
        if copy.target.is_dir() and not copy.target.is_symlink():
            raise UsageError(f"{copy.target} is a directory: fetch to another place.")
        if not force and os.path.lexists(copy.target):
            raise UsageError(f"{copy.target} is there already: fetch to another place, or say --force to replace it.")
    for root in {copy.root for copy in copies}:
        _check_room(root, sum(copy.file.bytes for copy in copies if copy.root == root))


def fetch(copy: Copy, chunks: Callable[[], Iterator[bytes]], place: str) -> Path:
    """Write one file and check it. `chunks` reads it, `place` names it for people.

    Raises JobctlError where it is missing or not what was published; nothing is left under its name then.
    """
    copy.target.parent.mkdir(parents=True, exist_ok=True)
    partial = copy.target.with_name(f".{copy.target.name}.{os.urandom(4).hex()}.partial")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666), "wb") as file:
            digest = _write(file, chunks(), copy.file.bytes, place)
        if digest != copy.file.sha256:
            raise JobctlError(f"{place} is damaged: its SHA-256 differs from the manifest's.")
        return partial.replace(copy.target)
    except NotFoundError as error:
        raise JobctlError(f"{place} is missing, though the manifest names it: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _write(file: Any, chunks: Iterator[bytes], most_bytes: int, place: str) -> str:
    """The SHA-256 of what was written: at most so many bytes."""
    digest, written = hashlib.sha256(), 0
    with contextlib.closing(chunks):  # type: ignore[type-var]  # a generator: it may hold a file or a connection
        for chunk in chunks:
            written += len(chunk)
            if written > most_bytes:
                raise JobctlError(f"{place} is damaged: it is longer than the {most_bytes:,} bytes of its manifest.")
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()


def _directories(copy: Copy) -> list[Path]:
    """Those between the root, which may be a link, and the file."""
    parents = [*Path(copy.relative).parents][:-1]
    return [copy.root / parent for parent in reversed(parents)]


def _check_room(root: Path, needed: int) -> None:
    existing = next(parent for parent in (root.absolute(), *root.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise UsageError(f"{root} has room for {free:,} bytes, and {needed:,} would be fetched: choose another place.")
