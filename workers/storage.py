"""Files on the shared volume: published by one atomic rename, verified by checksums when they are read.

A published directory holds `manifest.json` = {"schema", "files": {relative path: {"bytes", "sha256"}}}. It is written
last, in one canonical form, so that a change of any byte, in a file that it names or in itself, is found by `verify`.
Files that it does not name are ignored: file managers and NFS leave them.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from workers.errors import BadConfigError
from workers.untrusted import (
    MAX_JSON_BYTES,
    CorruptError,
    is_plain_path,
    misfit,
    open_file,
    parse_json,
    read_bytes,
    read_json,
)

__all__ = ["CorruptError", "read_json"]  # which whoever publishes needs as well

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = "jobctl.manifest/v1"
TEMPORARY = re.compile(r"\.tmp-(?P<name>.+)\.[0-9]+-[0-9a-f]{8}")
FENCED = re.compile(r"(?P<stem>.+)\.(?P<fence>[0-9]{6,9})")
STEP = re.compile(r"step-(?P<step>[0-9]{8,15})")
NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}  # what such volumes say
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}
_BLOCK_BYTES = 2**20


def fsync(descriptor: int) -> None:
    """Every fsync of the workers passes here, so that a test can let a disk fail."""
    os.fsync(descriptor)


def write_atomic(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader sees the old content or the new one, also after a power loss."""
    with _synced_beside(path, data) as temporary:
        temporary.replace(path)
    sync_directory(path.parent)


def create(path: Path, data: bytes) -> bool:
    """Make `path`, which nobody changes afterwards; False if it is there already (of many callers, one gets True).

    It appears whole or not at all; on a volume without hard links, a reader may see it empty for a moment, and so may
    all if the machine dies in that moment.
    """
    with _synced_beside(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            if not _claim(path):
                return False
            with _removed_on_failure(path):
                temporary.replace(path)
    sync_directory(path.parent)
    return True


def publish(final: Path, write: Callable[[Path], None]) -> Path:
    """Let `write(directory)` fill a temporary directory and publish it as `final` by one rename.

    Raises FileExistsError if `final` is already published (the first one stays), and whatever `write` or the disk
    raise; the temporary directory is removed in all these cases.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(final)
    try:
        temporary.mkdir()
        write(temporary)
        _seal(temporary)
        try:
            temporary.rename(final)
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise FileExistsError(errno.EEXIST, "already published", str(final)) from error
            raise
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_directory(final.parent)
    return final


def verify(
    directory: Path, root: Path | None = None, beat: Callable[[], None] = lambda: None, *, hashes: bool = True
) -> dict[str, Any]:
    """The manifest of a published directory, after the size and SHA-256 of each file it names were compared with it.

    Below `root` (the directory's parent, if None) no link is followed. `beat` is called after every MiB and file.
    `hashes=False` compares sizes only. Raises CorruptError naming the first file that is missing, cut or changed.
    """
    root = directory.parent if root is None else root
    manifest = _read_manifest(directory / MANIFEST, root)
    for name, entry in manifest["files"].items():
        path = directory / name
        with _open_named(path, root) as file:
            if (size := os.fstat(file.fileno()).st_size) != entry["bytes"]:
                raise CorruptError(path, f"it has {size} bytes instead of {entry['bytes']}")
            if hashes and _sha256(file, size, beat) != entry["sha256"]:
                raise CorruptError(path, "its SHA-256 differs from the manifest's")
        beat()
    return manifest


def to_json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def fenced(directory: Path) -> list[tuple[str, int, Path]]:
    """(stem, fence, path) of each publication STEM.FENCE in `directory`, in no order; [] without the directory."""
    try:
        paths = list(directory.iterdir())
    except FileNotFoundError:
        return []
    matches = [(FENCED.fullmatch(path.name), path) for path in paths if not path.name.startswith(".")]
    return [(match["stem"], int(match["fence"]), path) for match, path in matches if match]


def steps(directory: Path) -> list[tuple[int, int]]:
    """(step, fence) of each publication step-STEP.FENCE in `directory`, in no order."""
    matches = [(STEP.fullmatch(stem), fence) for stem, fence, _ in fenced(directory)]
    return [(int(match["step"]), fence) for match, fence in matches if match]


def clean_temporaries(parent: Path, fence: int) -> list[str]:
    """Remove the temporaries that writers with a number below `fence` left in `parent`; their names."""
    removed = []
    for path in list(parent.iterdir()) if parent.is_dir() else []:
        temporary = TEMPORARY.fullmatch(path.name)
        publication = FENCED.fullmatch(temporary["name"]) if temporary else None
        if publication and int(publication["fence"]) < fence:
            _remove_now(path)
            removed.append(path.name)
    return removed


def remove(path: Path) -> None:
    """Remove a publication: out of sight by one rename first, so that nobody takes half of it for a damaged one."""
    hidden = _temporary(path)
    with contextlib.suppress(FileNotFoundError):
        path.rename(hidden)
        _remove_now(hidden)


def require_space(directory: Path, checkpoint_bytes: int) -> None:
    """Raises BadConfigError if `directory` lacks room for two checkpoints: before step 0 of a new run only."""
    free = shutil.disk_usage(directory).free
    if free < 2 * checkpoint_bytes:
        raise BadConfigError(
            f"the volume has {_mib(free)} MiB free, but two checkpoints of {_mib(checkpoint_bytes)} MiB must fit: "
            "free space on it or take a larger claim"
        )


def sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:  # some network file systems cannot sync a directory
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _synced_beside(path: Path, data: bytes) -> Iterator[Path]:
    """A temporary file with `data`, on disk; it is gone at the end, whatever happens in between."""
    temporary = _temporary(path)
    try:
        _write_synced(temporary, data)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        fsync(file.fileno())


def _claim(path: Path) -> bool:
    """Make an empty file; False if the name is taken."""
    try:
        path.open("xb").close()
    except FileExistsError:
        return False
    return True


@contextlib.contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _remove_now(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _temporary(final: Path) -> Path:
    return final.parent / f".tmp-{final.name}.{os.getpid()}-{secrets.token_hex(4)}"


def _seal(directory: Path) -> None:
    """Sync every file, write the manifest last, then sync it and the directories."""
    files = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        _sync_file(path)
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[str(path.relative_to(directory))] = {"bytes": path.stat().st_size, "sha256": digest}
    manifest = directory / MANIFEST
    manifest.write_bytes(_canonical({"schema": MANIFEST_SCHEMA, "files": files}))
    _sync_file(manifest)
    for path in [*(path for path in directory.rglob("*") if path.is_dir()), directory]:
        sync_directory(path)


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fsync(descriptor)
    finally:
        os.close(descriptor)


def _canonical(manifest: dict[str, Any]) -> bytes:
    return json.dumps(manifest, indent=1, sort_keys=True).encode() + b"\n"


def _read_manifest(path: Path, root: Path) -> dict[str, Any]:
    try:
        data = read_bytes(path, root, MAX_JSON_BYTES)
    except FileNotFoundError:
        raise CorruptError(path, "it is missing") from None
    with contextlib.suppress(ValueError):
        manifest = parse_json(data)
        sound = misfit(manifest, {"schema": str, "files": dict}) is None and manifest["schema"] == MANIFEST_SCHEMA
        if sound and all(map(_names_a_file, manifest["files"].items())) and _canonical(manifest) == data:
            return manifest
    raise CorruptError(path, "it is not a manifest as it was written")


def _names_a_file(item: tuple[str, Any]) -> bool:
    name, entry = item
    sized = misfit(entry, {"bytes": int, "sha256": str}) is None and entry["bytes"] >= 0
    return sized and name != MANIFEST and is_plain_path(name)


def _open_named(path: Path, root: Path) -> BinaryIO:
    try:
        return open_file(path, root)
    except FileNotFoundError:
        raise CorruptError(path, "it is missing") from None


def _sha256(file: BinaryIO, size: int, beat: Callable[[], None]) -> str:
    """Of a file's first `size` bytes: one that grows meanwhile is not followed."""
    digest = hashlib.sha256()
    while size > 0 and (block := file.read(min(size, _BLOCK_BYTES))):
        digest.update(block)
        size -= len(block)
        beat()
    return digest.hexdigest()


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f}"
