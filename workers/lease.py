"""One publisher at a time: numbered leases on the shared volume, at runs/RUN/lease/INDEX/NNNNNN.

A lease is a file that appears whole by an exclusive link. Its holder rewrites a counter every second. Whoever wants the
next number waits until the newest lease is released, or until its counter has stood still for the lease time on the
waiter's own clock. The number is the fence: part of every name that its holder publishes.

Old leases are removed by whoever takes a new one, but for those that decide about something: see `prune`.
"""

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workers import storage, untrusted
from workers.errors import BadConfigError, InterruptedRun
from workers.runtime import seconds_from_env

DEFAULT_LEASE_SECONDS = 30.0
HEARTBEAT_SECONDS = 1.0
POLL_SECONDS = 0.2
KEPT = 16  # newest leases that stay, whatever they decide
MAX_NUMBER = 999_999_999
_PREFIX = b'{"heartbeat": "'
_WIDTH = 16
_FIELDS: dict[str, untrusted.Types] = {
    "heartbeat": str,
    "pod": str,
    "token": (str, type(None)),
    "released": bool,
    "adopted": (dict, type(None)),
}
_ADOPTED: dict[str, untrusted.Types] = {"step": (int, type(None))}


@dataclass(frozen=True)
class Limits:
    """What the leases of one index adopted: (number, step), step None for a lease that began from nothing."""

    adoptions: tuple[tuple[int, int | None], ...] = ()

    @property
    def newest(self) -> int:
        """Number of the newest lease that adopted something and so began to publish; 0 if none did."""
        return max((number for number, _ in self.adoptions), default=0)

    def superseded(self, step: int, fence: int) -> bool:
        """Whether a later lease went on from before `step`: this is of a writer that woke up late."""
        return any(fence < number and (limit is None or step > limit) for number, limit in self.adoptions)


def lease_seconds_from_env() -> float:
    return seconds_from_env("JOBCTL_LEASE_SECONDS", DEFAULT_LEASE_SECONDS)


def numbers(directory: Path) -> list[int]:
    """The numbers that were ever taken, ascending."""
    try:
        found = [untrusted.whole_number(path.name) for path in directory.iterdir()]
    except FileNotFoundError:
        return []
    return sorted(number for number in found if number is not None)


def read(directory: Path, number: int) -> dict[str, Any] | None:
    """A lease file's content; None if it can't be read now, which says nothing about its holder."""
    with contextlib.suppress(OSError, untrusted.CorruptError):
        return _read(directory, number)
    return None


def path_of(directory: Path, number: int) -> Path:
    return directory / f"{number:06d}"


def adopted_limits(directory: Path) -> Limits:
    """Which publications are superseded, from the lease files in `directory`; no limits if there are none."""
    records = ((number, read(directory, number)) for number in numbers(directory))
    adopted = ((number, record["adopted"]) for number, record in records if record)
    return Limits(tuple((number, entry["step"]) for number, entry in adopted if entry is not None))


def first_since_fresh(directory: Path) -> int:
    """The number with which --fresh last began anew: its token is another than that of the lease before. 0: never."""
    records = [(number, read(directory, number)) for number in numbers(directory)]
    tokens = [(number, record["token"] if record else None) for number, record in records]
    before = [None, *(token for _, token in tokens)]
    begun = [number for (number, token), last in zip(tokens, before, strict=False) if token not in (None, last)]
    return max(begun, default=0)


def prune(directory: Path, kept: int) -> None:
    """Remove leases of before, but for the `kept` newest ones and as many of those that adopted something, and for
    those that supersede a checkpoint or best weights that still lie there. The highest number is never removed, so
    none comes again.
    """
    taken = numbers(directory)
    if len(taken) <= kept:
        return
    adoptions = adopted_limits(directory).adoptions
    run_dir = directory.parent.parent
    published = [found for place in ("checkpoints", "best") for found in storage.steps(run_dir / place)]
    staying = {*taken[-kept:], *(number for number, _ in adoptions[-kept:])}
    for number, limit in adoptions:
        if any(Limits(((number, limit),)).superseded(step, fence) for step, fence in published):
            staying.add(number)
    for number in set(taken) - staying:
        path_of(directory, number).unlink(missing_ok=True)


def adopt(directory: Path, number: int, name: str | None, step: int | None) -> None:
    """Record in lease `number` what its holder goes on from: publication `name` of `step`, or None, None: nothing."""
    _update(directory, number, adopted={"name": name, "step": step})


def wait_until_free(
    directory: Path,
    *,
    lease_seconds: float,
    should_stop: Callable[[], bool],
    say: Callable[[str], None],
    ignore_token: str | None = None,
) -> int:
    """Wait until no lease in `directory` is alive; the newest number, 0 if there is none.

    A lease taken with `ignore_token` counts as free. Raises InterruptedRun as soon as `should_stop()`.
    """
    watched: tuple[int, Any] = (0, None)
    still = 0.0
    last = time.monotonic()
    while True:
        newest = max(numbers(directory), default=0)
        record = read(directory, newest) if newest else {"released": True}
        if record and (record["released"] or (ignore_token and record["token"] == ignore_token)):
            return newest
        now = time.monotonic()
        seen = (newest, record["heartbeat"] if record else watched[1])
        if seen != watched:
            if seen[0] != watched[0]:
                say(f"waiting for lease {newest} of pod {record['pod'] if record else 'unknown'} to end")
            watched, still = seen, 0.0
        else:
            # A storage stall stops the holder's counter too: time counts only as far as we could look.
            still += min(now - last, 2 * POLL_SECONDS)
        last = now
        if still >= lease_seconds:
            say(f"lease {newest} has stood still for {still:.1f} s: its holder is taken for dead")
            return newest
        if should_stop():
            raise InterruptedRun("told to stop while waiting for the lease")
        time.sleep(POLL_SECONDS)


class Lease:
    """A held lease; its counter is rewritten by a thread until `release()`."""

    def __init__(self, directory: Path, number: int) -> None:
        self.directory = directory
        self.number = number
        self.lost = threading.Event()  # somebody took a higher number: this holder must end
        self._count = 0
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)

    @classmethod
    def acquire(
        cls,
        directory: Path,
        *,
        pod: str,
        uid: str,
        token: str | None = None,
        above: int = 0,
        lease_seconds: float | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        say: Callable[[str], None] = lambda text: None,
    ) -> "Lease":
        """Wait for the holder, then take the next number, which is larger than `above`.

        Raises InterruptedRun as soon as `should_stop()`.
        """
        directory.mkdir(parents=True, exist_ok=True)
        seconds = lease_seconds_from_env() if lease_seconds is None else lease_seconds
        while True:
            newest = wait_until_free(directory, lease_seconds=seconds, should_stop=should_stop, say=say)
            number = 1 + max(newest, above)
            if number > MAX_NUMBER:
                raise BadConfigError(f"{path_of(directory, number - 1)} is no lease that anybody took: remove it")
            record = {
                "pod": pod,
                "uid": uid,
                "token": token,
                "takenAt": time.time(),
                "released": False,
                "adopted": None,
            }
            if storage.create(path_of(directory, number), _encode(record)):
                lease = cls(directory, number)
                lease._thread.start()
                with contextlib.suppress(OSError):  # the next one tries again
                    prune(directory, KEPT)
                return lease

    @property
    def path(self) -> Path:
        return path_of(self.directory, self.number)

    def adopt(self, name: str | None, step: int | None) -> None:
        with self._lock:
            adopt(self.directory, self.number, name, step)

    def heartbeat(self) -> None:
        """Rewrite the counter in place: the rest of the file, which another process may replace, is not touched."""
        with self._lock:
            self._count += 1
            descriptor = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                os.pwrite(descriptor, f"{self._count:0{_WIDTH}d}".encode(), len(_PREFIX))
            finally:
                os.close(descriptor)

    def is_current(self) -> bool:
        """Whether nobody has taken a higher number."""
        return max(numbers(self.directory), default=0) <= self.number

    def release(self) -> None:
        """Let the next one take over at once. A holder that lost its lease leaves the file as it is."""
        if self._released.is_set():
            return
        self._released.set()
        with self._lock:
            _update(self.directory, self.number, released=True)

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(OSError):  # a disk that fails for a moment; if it stays so, the lease is lost
                self.heartbeat()
            with contextlib.suppress(OSError):
                if not self.is_current():
                    self.lost.set()


def _encode(record: dict[str, Any]) -> bytes:
    """JSON whose counter always stands at the same place."""
    rest = {key: value for key, value in record.items() if key != "heartbeat"}
    counter = str(record.get("heartbeat", "0" * _WIDTH))
    return _PREFIX + counter.encode() + b'", ' + json.dumps(rest).encode()[1:] + b"\n"


def _update(directory: Path, number: int, **changes: Any) -> None:
    storage.write_atomic(path_of(directory, number), _encode(_read(directory, number) | changes))


def _read(directory: Path, number: int) -> dict[str, Any]:
    """Raises FileNotFoundError, or CorruptError for what is no lease. Below the run's directory no link is followed."""
    path = path_of(directory, number)
    record = untrusted.read_record(path, _FIELDS, root=directory.parent.parent)
    if record["adopted"] is not None and (wrong := untrusted.misfit(record["adopted"], _ADOPTED)):
        raise untrusted.CorruptError(path, f"in 'adopted', {wrong}")
    return record
