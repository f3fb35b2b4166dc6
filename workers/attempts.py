"""Attempt records: runs/RUN/attempts/INDEX.PODUID.{json,log}, and the rule that ends a job which makes no progress.

Standard library only: the supervisor imports this.
"""

import contextlib
import queue
import resource
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from workers import lease, storage, untrusted
from workers.errors import PeersLostError, StuckError
from workers.results import iso
from workers.runtime import Runtime

SCHEMA = "jobctl.attempt/v1"
STUCK_AFTER = 3
MAX_LOG_BYTES = 64 * 2**20
_QUEUED_LINES = 10_000
_FIELDS: dict[str, untrusted.Types] = {
    "jobUid": str,
    "fence": int,
    "startedAt": str,
    "progressBefore": int,
    "end": (dict, type(None)),
}
_END: dict[str, untrusted.Types] = {"exitCode": int, "reason": str, "signalled": bool}
_CGROUP_PEAK = Path("/sys/fs/cgroup/memory.peak")  # exists in a container under cgroup v2, not at a machine's root


def begin(run_dir: Path, runtime: Runtime, spec_hash: str, mark: int) -> dict[str, Any]:
    """Write the record of an attempt that starts now; `mark` is the progress on the volume at this moment."""
    record = {
        "schema": SCHEMA,
        "index": runtime.index,
        "pod": runtime.pod,
        "podUid": runtime.pod_uid,
        "jobUid": runtime.job_uid,
        "node": runtime.node,
        "specHash": spec_hash,
        "fence": runtime.fence,
        "startedAt": iso(time.time()),
        "progressBefore": mark,
        "end": None,
    }
    _write(run_dir, record)
    return record


def end(
    run_dir: Path, record: dict[str, Any], *, code: int, reason: str, outside: bool, seconds: float, mark: int
) -> None:
    """Complete an attempt's record. `outside`: it was told to stop, or lost its lease, by somebody else."""
    ended = {
        "endedAt": iso(time.time()),
        "seconds": round(seconds, 3),
        "exitCode": code,
        "reason": reason,
        "signalled": outside,
        "progressAfter": mark,
        **memory_high_water(),
    }
    _write(run_dir, record | {"end": ended})


def records(run_dir: Path, index: int, job_uid: str | None = None) -> list[dict[str, Any]]:
    """The attempts of an index (of one Job), oldest first. Unreadable ones are left out: they decide nothing alone."""
    found = []
    for path in (run_dir / "attempts").glob(f"{index}.*.json"):
        with contextlib.suppress(untrusted.CorruptError, FileNotFoundError):
            record = untrusted.read_record(path, _FIELDS, root=run_dir)
            if record["end"] is None or untrusted.misfit(record["end"], _END) is None:
                found.append(record)
    mine = [record for record in found if job_uid is None or record["jobUid"] == job_uid]
    return sorted(mine, key=lambda record: (record["fence"], record["startedAt"]))


def without_progress(history: Sequence[dict[str, Any]], mark: int) -> int:
    """How many of the newest attempts in a row ended by themselves and published nothing; `mark`: progress by now.

    An attempt that was told to stop, lost its peers or left no end record neither counts nor ends the row.
    """
    count = 0
    after = mark
    for record in reversed(history):
        if after > record["progressBefore"]:
            break
        after = record["progressBefore"]
        ended = record["end"]
        count += bool(ended and not ended["signalled"] and ended["exitCode"] != PeersLostError.code)
    return count


def require_progress(history: Sequence[dict[str, Any]], mark: int) -> None:
    """Raises StuckError if the newest attempts in a row made no progress."""
    count = without_progress(history, mark)
    if count >= STUCK_AFTER:
        last = next(record["end"] for record in reversed(history) if record["end"])
        raise StuckError(
            f"{count} attempts in a row made no progress; "
            f"the last one ended with code {last['exitCode']}: {last['reason']}"
        )


def progress_mark(kind: str, run_dir: Path, dataset: Path, index: int, episodes: range) -> int:
    """What this index has published, as a number that grows: counted on the volume, never taken from the loop's word.

    train: 1 + the newest checkpoint's step; collect: entries in the ledger for this index's `episodes`; eval: results.
    """
    if kind == "collect":
        return sum(untrusted.whole_number(path.stem) in episodes for path in (dataset / "ledger").glob("*.json"))
    if kind == "train":
        limits, steps = lease.adopted_limits(run_dir / "lease" / "0"), storage.steps(run_dir / "checkpoints")
        return max((1 + step for step, fence in steps if not limits.superseded(step, fence)), default=0)
    return sum(stem == str(index) for stem, _, _ in storage.fenced(run_dir / "results"))


def memory_high_water() -> dict[str, Any]:
    """Peak memory: the container's where cgroup v2 tells it, otherwise that of the largest process that ended."""
    with contextlib.suppress(OSError, ValueError):
        return {"memoryHighWaterBytes": int(_CGROUP_PEAK.read_text()), "memorySource": "cgroup"}
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"memoryHighWaterBytes": peak, "memorySource": "largest process"}


class Log:
    """Lines to stdout, and to the attempt's log on the volume: there by a thread, so that a slow disk stops nobody."""

    def __init__(self) -> None:
        self._lines: queue.Queue[bytes | None] = queue.Queue(_QUEUED_LINES)
        self._thread: threading.Thread | None = None
        self._written = 0
        self._dropped = 0

    def open(self, path: Path) -> None:
        """From now on (and with what was said before) also write to `path`."""
        self._thread = threading.Thread(target=self._write, args=(path,), name="attempt-log", daemon=True)
        self._thread.start()

    def say(self, text: str) -> None:
        stamp = time.strftime("%H:%M:%S")
        self.line(f"{stamp} {text}\n".encode(errors="backslashreplace"))

    def line(self, line: bytes) -> None:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._dropped += 1

    def close(self, timeout: float) -> None:
        """Wait until the volume has all lines, at most `timeout` seconds."""
        if self._thread is not None:
            with contextlib.suppress(queue.Full):
                self._lines.put(None, timeout=timeout)
                self._thread.join(timeout)

    def _write(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with untrusted.open_to_append(path) as file:
                while (line := self._lines.get()) is not None:
                    self._write_line(file, line)
                storage.fsync(file.fileno())
        except OSError as error:
            print(f"the log {path} cannot be written: {error.strerror}; it goes on without", flush=True)

    def _write_line(self, file: Any, line: bytes) -> None:
        if self._written > MAX_LOG_BYTES:
            return
        self._written += len(line)
        try:
            if self._dropped:
                file.write(f"... {self._dropped} lines are missing: the volume was too slow or full\n".encode())
                self._dropped = 0
            file.write(line if self._written <= MAX_LOG_BYTES else b"... the log ends here: it has reached its limit\n")
        except OSError:
            self._dropped += 1


def log_path(run_dir: Path, index: int, pod_uid: str) -> Path:
    return run_dir / "attempts" / f"{index}.{pod_uid}.log"


def _write(run_dir: Path, record: dict[str, Any]) -> None:
    path = log_path(run_dir, record["index"], record["podUid"]).with_suffix(".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    storage.write_atomic(path, storage.to_json(record))
