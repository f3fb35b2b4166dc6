"""Files on the shared volume: published by one atomic rename, verified by checksums when they are read.

A published directory holds `manifest.json` = {"schema", "files": {relative path: {"bytes", "sha256"}}}. It is written
last, in one canonical form, so that a change of any byte, in a file or in the manifest itself, is found by `verify`.
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
from typing import Any

from workers.errors import BadConfigError, WorkerError

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = "jobctl.manifest/v1"
TEMPORARY = re.compile(r"^\.tmp-(?P<name>.+)\.\d+-[0-9a-f]{8}$")
FENCED = re.compile(r"^(?P<stem>.+)\.(?P<fence>\d{6})$")
NO_LINKS = {errno.EPERM, errno.EXDEV, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS, errno.EACCES}  # what such volumes say
_NO_DIRECTORY_SYNC = {errno.EINVAL, errno.ENOTSUP, errno.EBADF}


class CorruptError(WorkerError):
    """A file on the volume is not what was published: the message names the file and what is wrong with it."""

    code = 65

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path} is damaged: {why}")
        self.path = path
        self.why = why


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

    It appears whole or not at all; on a volume without hard links, a reader may see it half-written.
    """
    with _synced_beside(path, data) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            return _create_exclusively(path, data)
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


def verify(directory: Path) -> dict[str, Any]:
    """The manifest of a published directory, after each file's size and SHA-256 were compared with it.

    Raises CorruptError naming the first file that is missing, unexpected, cut or changed.
    """
    manifest = _read_manifest(directory / MANIFEST)
    expected = manifest["files"]
    found = {str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir()} - {MANIFEST}
    for name in sorted(set(expected) ^ found):
        raise CorruptError(directory / name, "it is missing" if name in expected else "the manifest does not name it")
    for name, entry in expected.items():
        path = directory / name
        if (size := path.stat().st_size) != entry["bytes"]:
            raise CorruptError(path, f"it has {size} bytes instead of {entry['bytes']}")
        if sha256(path) != entry["sha256"]:
            raise CorruptError(path, "its SHA-256 differs from the manifest's")
    return manifest


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    """Raises FileNotFoundError, or CorruptError if the file is not JSON."""
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptError(path, f"it is not JSON ({error})") from error


def to_json(value: Any) -> bytes:
    return json.dumps(value, indent=1).encode() + b"\n"


def fenced(directory: Path) -> list[tuple[str, int, Path]]:
    """(stem, fence, path) of each publication STEM.FENCE in `directory`, in no order; [] without the directory."""
    try:
        paths = list(directory.iterdir())
    except FileNotFoundError:
        return []
    matches = [(FENCED.match(path.name), path) for path in paths if not path.name.startswith(".")]
    return [(match["stem"], int(match["fence"]), path) for match, path in matches if match]


def clean_temporaries(parent: Path, fence: int) -> list[str]:
    """Remove the temporaries that writers with a number below `fence` left in `parent`; their names."""
    removed = []
    for path in list(parent.iterdir()) if parent.is_dir() else []:
        temporary = TEMPORARY.match(path.name)
        publication = FENCED.match(temporary["name"]) if temporary else None
        if publication and int(publication["fence"]) < fence:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
            removed.append(path.name)
    return removed


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


def _create_exclusively(path: Path, data: bytes) -> bool:
    try:
        _write_synced(path, data)
    except FileExistsError:
        return False
    return True


def _temporary(final: Path) -> Path:
    return final.parent / f".tmp-{final.name}.{os.getpid()}-{secrets.token_hex(4)}"


def _seal(directory: Path) -> None:
    """Sync every file, write the manifest last, then sync it and the directories."""
    files = {}
    for path in sorted(path for path in directory.rglob("*") if path.is_file()):
        _sync_file(path)
        files[str(path.relative_to(directory))] = {"bytes": path.stat().st_size, "sha256": sha256(path)}
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


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise CorruptError(path, "it is missing") from None
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError):
        manifest = json.loads(data)
        sizes = [(entry["bytes"], entry["sha256"]) for entry in manifest["files"].values()]
        sound = all(isinstance(size, int) and isinstance(digest, str) for size, digest in sizes)
        if sound and manifest["schema"] == MANIFEST_SCHEMA and _canonical(manifest) == data:
            return manifest
    raise CorruptError(path, "it is not a manifest as it was written")


def _mib(count: int) -> str:
    return f"{count / 2**20:,.0f}"
