"""`--fresh`: once for each token, all that a run has published moves aside; its leases stay: numbers never restart."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workers import lease, storage, untrusted

LOCK = "fresh"
_FIELDS: dict[str, untrusted.Types] = {"number": int, "done": bool}


def pending(lease_root: Path, token: str | None) -> bool:
    """Whether somebody still has to move things aside for this token. Raises CorruptError if nobody can tell."""
    if token is None:
        return False
    record = _record(lease_root, token)
    return record is None or not record["done"]


def move_aside(
    own: lease.Lease,
    targets: Sequence[Path],
    token: str,
    *,
    pod: str,
    uid: str,
    lease_seconds: float,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
) -> None:
    """Move all but lease/ of each target DIRECTORY into DIRECTORY.before-NNNNNN, unless that was done for this token.

    NNNNNN is the number of the lease of whoever does it (a higher one where that is taken). Of several indexes one
    does it, after all writers of before have gone; the others wait. Raises InterruptedRun as soon as `should_stop()`.
    """
    root = own.directory.parent
    common: dict[str, Any] = {"lease_seconds": lease_seconds, "should_stop": should_stop, "say": say}
    if not pending(root, token):
        return
    lock = lease.Lease.acquire(root / LOCK, pod=pod, uid=uid, token=token, **common)
    try:
        if not pending(root, token):
            return
        for directory in root.iterdir():
            if untrusted.whole_number(directory.name) is not None and directory != own.directory:
                lease.wait_until_free(directory, ignore_token=token, **common)
        _move(root, targets, token, own.number, say)
    finally:
        lock.release()


def _move(root: Path, targets: Sequence[Path], token: str, number: int, say: Callable[[str], None]) -> None:
    path = _record_path(root, token)
    if begun := _record(root, token):  # by somebody who died: the same destination again
        number = begun["number"]
    else:
        while any(_destination(target, number).exists() for target in targets):
            number += 1
    record = {"token": token, "number": number, "done": False}
    storage.write_atomic(path, storage.to_json(record))
    for target in targets:
        children = [child for child in target.iterdir() if child.name != "lease"] if target.is_dir() else []
        if children:
            destination = _destination(target, number)
            destination.mkdir(exist_ok=True)
            for child in children:
                child.rename(destination / child.name)
            storage.sync_directory(destination)
            storage.sync_directory(target)
            say(f"fresh start: what {target.name} held lies in {destination.name} now")
    storage.write_atomic(path, storage.to_json(record | {"done": True}))


def _destination(target: Path, number: int) -> Path:
    return target.with_name(f"{target.name}.before-{number:06d}")


def _record(root: Path, token: str) -> dict[str, Any] | None:
    try:
        return untrusted.read_record(_record_path(root, token), _FIELDS, root=root.parent)
    except FileNotFoundError:
        return None


def _record_path(root: Path, token: str) -> Path:
    return root / LOCK / f"{hashlib.sha256(token.encode()).hexdigest()[:16]}.json"
