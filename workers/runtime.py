"""What a pod tells its worker by environment, the flag that says stop, and the sign of life to the supervisor.

Standard library only: the supervisor imports this before anything heavy.
"""

import contextlib
import ctypes
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from workers.errors import BadConfigError
from workers.hold import Hold, hold_directory

SUMMARY_INTERVAL_SECONDS = 0.2
MARGIN_SECONDS = 5.0  # an attempt has ended this long before the grace period does
RUN_PARTS = ("lease", "attempts", "metrics", "checkpoints", "best", "predictions", "results", "specs")
DATASET = "dataset.json"
DATASET_PARTS = ("episodes", "ledger", "lease")
DEFAULT_EPISODES = 60  # of a collect run that asks for no number
_PR_SET_PDEATHSIG = 1
_UTIME = 11  # of /proc/PID/task/TID/stat, counted after the name; stime follows


class StopFlag:
    """Set once by SIGTERM; the loop looks at it between steps."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.since: float | None = None  # time.monotonic() of the signal

    def set(self) -> None:
        if self.since is None:
            self.since = time.monotonic()
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)


@dataclass(kw_only=True)
class Runtime:
    """One loop process. `index`: the pod's stable number; `world`: how many processes train as one group, 1 alone."""

    volume: Path
    tmp: Path
    index: int = 0
    replicas: int = 1
    local_rank: int = 0
    world: int = 1
    pod: str = "local"
    pod_uid: str = "local"
    job_uid: str = "local"
    namespace: str = "default"
    node: str = "local"
    ip: str = "127.0.0.1"
    metrics_port: int = 9400
    grace_seconds: float = 60.0
    fence: int = 1
    attempt: int = 1
    store: str | None = None
    hold_at: int | None = None
    store_prefix: str = ""
    store_descriptor: int | None = None  # rank 0's: a socket that listens at `store`
    summary_file: Path | None = None
    stop: StopFlag = field(default_factory=StopFlag)
    started_at: float = field(default_factory=time.time)
    started_monotonic: float = field(default_factory=time.monotonic)
    waits: float | None = None  # since when this process waits for others of its group, time.monotonic()
    computes: bool = False  # while it waits
    _hold: Hold | None = field(default=None, repr=False)
    _summary: dict[str, Any] = field(default_factory=dict, repr=False)
    _busy: dict[str, Any] | None = field(default=None, repr=False)
    _written: float = field(default=float("-inf"), repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> "Runtime":
        """Raises BadConfigError if JOBCTL_VOLUME is missing or a number is none."""
        if not env.get("JOBCTL_VOLUME"):
            raise BadConfigError("JOBCTL_VOLUME is not set: it names the directory where the shared volume is mounted")
        tmp = Path(env.get("JOBCTL_TMP") or tempfile.gettempdir())
        texts = {key: env[name] for key, name in _TEXTS.items() if env.get(name)}
        numbers = {key: _number(env[name], name) for key, name in _NUMBERS.items() if env.get(name)}
        summary = env.get("JOBCTL_SUMMARY")
        return cls(
            volume=Path(env["JOBCTL_VOLUME"]),
            tmp=tmp,
            grace_seconds=seconds_from_env("JOBCTL_GRACE_SECONDS", 60.0, env),
            summary_file=Path(summary) if summary else None,
            **texts,  # type: ignore[arg-type]
            **numbers,  # type: ignore[arg-type]
        )

    @property
    def rank(self) -> int:
        """Number of this process in its training group."""
        return self.index * (self.world // self.replicas) + self.local_rank if self.world > 1 else 0

    def seconds_to_save(self) -> float:
        """Time left for saving, until the margin before the grace period's end; all of it while nobody said stop."""
        whole = time_to_save(self.grace_seconds)
        return whole if self.stop.since is None else max(0.0, self.stop.since + whole - time.monotonic())

    def progress(self, **summary: Any) -> None:
        """Tell the supervisor that the loop lives, and what belongs into the termination message.

        progress(step=120, loss=0.3) is cheap to call every step: the file is written at most five times a second. It
        returns when the loop may go on: see `hold_as`.
        """
        with self._lock:
            is_news = not summary.keys() <= self._summary.keys()  # the first step: now there is something to save
            self._summary.update(summary)
            if is_news or time.monotonic() - self._written >= SUMMARY_INTERVAL_SECONDS:
                self._write_summary()
        if self._hold is not None and "step" in summary:
            self._hold.keep(summary["step"], self.stop.wait, self.progress)

    def hold_as(self, run: str) -> None:
        """Have `progress` stand still at the step that JOBCTL_HOLD_AT names, if it does: workers/hold.py."""
        if self.hold_at is None:
            return
        name = f"{self.index}.{self.local_rank}" if self.local_rank else f"{self.index}"
        generation = f"{self.fence:06d}.told" if self.world > 1 else None
        facts = {"pod": self.pod, "fence": self.fence}
        self._hold = Hold(hold_directory(self.volume, run), self.hold_at, name, facts, generation)

    def flush_progress(self, **summary: Any) -> None:
        """As `progress`, written at once: the last words of a loop."""
        with self._lock:
            self._summary.update(summary)
            self._write_summary()

    @contextlib.contextmanager
    def busy(self, doing: str, thread: int | None = None) -> Iterator[None]:
        """Around one long call that can't say `progress` itself: to read, hash or import a lot.

        It counts as alive as long as this thread, or the one with the native id `thread` that it waits for, uses
        processor time, which none does that is blocked for ever. Of no use around polling. `doing` completes "no
        progress while ...".
        """
        outer, self._busy = self._busy, {"doing": doing, "thread": thread or threading.get_native_id()}
        try:
            self.flush_progress()
            yield
        finally:
            self._busy = outer
            self.flush_progress()

    def _write_summary(self) -> None:
        self._written = time.monotonic()
        if self.summary_file is None:
            return
        temporary = self.summary_file.with_suffix(".tmp")
        told = {"beat": self._written, "summary": self._summary, "busy": self._busy}
        told |= {"waits": self.waits, "computes": self.computes}
        temporary.write_text(json.dumps(told, default=str))
        temporary.replace(self.summary_file)  # no fsync: it only has to outlive this process, not the machine


def time_to_save(grace_seconds: float) -> float:
    """Seconds between SIGTERM and the moment where a loop that still saves is killed."""
    return max(grace_seconds - MARGIN_SECONDS, grace_seconds / 2)


def processor_ticks(process: int, thread: int) -> int | None:
    """Processor time that a thread of a process has used, in clock ticks (10 ms); None where nobody can say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        fields = Path(f"/proc/{process}/task/{thread}/stat").read_text().rpartition(")")[2].split()
        return int(fields[_UTIME]) + int(fields[_UTIME + 1])
    return None


def seconds_from_env(name: str, default: float, env: Mapping[str, str] = os.environ) -> float:
    """A duration; raises BadConfigError if it is no positive number."""
    text = env.get(name) or str(default)
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < float("inf"):
            return seconds
    raise BadConfigError(f"{name} is {text!r} in the environment, but must be a number of seconds above 0")


def run_directory(volume: Path, run: str) -> Path:
    return volume / "runs" / run


def require_no_links(volume: Path, run: str) -> None:
    """Raises BadConfigError where runs/RUN or a directory in it is a link: a worker writes there, --fresh moves it."""
    directory = run_directory(volume, run)
    for path in (directory, *(directory / part for part in RUN_PARTS)):
        if path.is_symlink():
            raise BadConfigError(f"{path} is a link, behind which no run is written: remove it, or take another name")


def data_directory(volume: Path, data: str | None, run: str) -> Path:
    """Where `data` lies on the volume; a collect run without the key writes datasets/RUN."""
    return volume / (data or f"datasets/{run}")


def recorded_directory(volume: Path, data: str | None, run: str) -> Path:
    """Where collect writes: a directory below datasets/ that neither lies in another dataset nor holds one.

    Raises BadConfigError for any other place, also one that a link leads to: --fresh moves aside what is there.
    """
    directory, root = data_directory(volume, data, run), volume / "datasets"
    parts = PurePosixPath(data or f"datasets/{run}").parts
    plain = len(parts) > 1 and parts[0] == "datasets" and ".." not in parts and "\0" not in str(directory)
    if not plain or not Path(os.path.realpath(directory)).is_relative_to(os.path.realpath(root)):  # loops don't raise
        raise BadConfigError(f"data is {data!r}, but collect writes below datasets/ only: give datasets/NAME")
    above = [parent for parent in directory.parents if parent != root and parent.is_relative_to(root)]
    for other in (*above, *_below(directory)):
        if (other / DATASET).exists():
            held = other.relative_to(volume)
            raise BadConfigError(f"data is {data!r}, but {held} is a dataset of its own: give another datasets/NAME")
    return directory


def _below(directory: Path) -> Iterator[Path]:
    """Every directory below, but those that a dataset here consists of."""
    for place, names, files in os.walk(directory):
        if place != str(directory):
            yield Path(place)
        if DATASET in files:
            names[:] = [name for name in names if name not in DATASET_PARTS]


def owned_range(count: int, replicas: int, index: int) -> range:
    """The episodes of a collect run that belong to one index: disjoint, contiguous, all of range(count) together."""
    return range(index * count // replicas, (index + 1) * count // replicas)


def lease_directory(volume: Path, kind: str, run: str, data: str | None, index: int) -> Path:
    """A run's leases lie under runs/RUN, those of collect beside the episodes that they guard."""
    root = recorded_directory(volume, data, run) if kind == "collect" else run_directory(volume, run)
    return root / "lease" / str(index)


def killed_by(number: int) -> str:
    """What a signal did to a process, in words."""
    hint = ": probably out of memory" if number == signal.SIGKILL else ""
    return f"killed by {signal.Signals(number).name}{hint}"


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when process `parent`, which started it, dies; at once if it is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


_TEXTS = {
    "pod": "JOBCTL_POD_NAME",
    "pod_uid": "JOBCTL_POD_UID",
    "job_uid": "JOBCTL_JOB_UID",
    "namespace": "JOBCTL_NAMESPACE",
    "node": "JOBCTL_NODE",
    "ip": "JOBCTL_POD_IP",
    "store": "JOBCTL_STORE",
    "store_prefix": "JOBCTL_STORE_PREFIX",
}
_NUMBERS = {
    "index": "JOB_COMPLETION_INDEX",
    "replicas": "JOBCTL_REPLICAS",
    "local_rank": "JOBCTL_LOCAL_RANK",
    "world": "JOBCTL_WORLD",
    "metrics_port": "JOBCTL_METRICS_PORT",
    "fence": "JOBCTL_FENCE",
    "attempt": "JOBCTL_ATTEMPT",
    "hold_at": "JOBCTL_HOLD_AT",
    "store_descriptor": "JOBCTL_STORE_DESCRIPTOR",
}


def _number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadConfigError(f"{name} is {text!r} in the environment, but must be a whole number") from None
