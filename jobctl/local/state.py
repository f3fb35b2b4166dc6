"""Files that survive a crash, and processes that are told apart even after a reboot or the reuse of a number."""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobctl.untrusted import text, whole

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def write_atomic(path: Path, data: bytes) -> None:
    """Replace a file so that a reader, or the next boot, sees the old content or the new. Raises OSError.

    It is readable for its owner alone.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_json(path: Path, value: Any) -> None:
    write_atomic(path, json.dumps(value, separators=(",", ":")).encode())


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@dataclass(frozen=True)
class Identity:
    """One process of one boot: its number alone may belong to another one by now."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def from_dict(cls, saved: Any) -> "Identity | None":
        """What as_dict gave; None for anything else."""
        pid, start_ticks, boot = whole(saved, "pid"), whole(saved, "start_ticks"), text(saved, "boot_id")
        return None if pid is None or start_ticks is None or boot is None else cls(pid, start_ticks, boot)

    @classmethod
    def of(cls, pid: int) -> "Identity | None":
        """None if there is no such process, or only its exit status is left."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat.rpartition(")")[2].split()  # the program's name may hold spaces and parentheses
        if fields[0] in "ZX":
            return None
        return cls(pid, int(fields[19]), boot_id())

    @property
    def alive(self) -> bool:
        return self.boot_id == boot_id() and Identity.of(self.pid) == self

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def boot_id() -> str:
    return BOOT_ID.read_text().strip()


def timestamp(seconds: float | None = None) -> str:
    """RFC 3339 in UTC, to the microsecond."""
    moment = datetime.fromtimestamp(time.time() if seconds is None else seconds, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
