"""Logs over all replicas and attempts: from the volume what the API server has no more, then the pods', each followed
by a thread that comes back where its connection was cut, and goes on after the last line it had.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from jobctl.backend import LogLine
from jobctl.cluster.api import Api
from jobctl.cluster.reader import PodReader
from jobctl.cluster.refusals import AwayError
from jobctl.errors import JobctlError, NotFoundError, UnreachableError
from jobctl.objects import INDEX_LABEL, by_index, failures_before
from jobctl.patience import Patience
from jobctl.untrusted import split_lines, text, whole

Object = dict[str, Any]

LOOK_SECONDS = 1.0  # between two looks at which pods there are
SILENT_SECONDS = 60  # a followed log without a line for so long is asked for anew: its socket may be dead
LAST_TRY_SECONDS = 60.0  # how long the log of a pod that has ended may not be had, on a node that is away
Note = Callable[[str], None]


@dataclass
class Tail:
    """One pod's log, read in the background where it is followed. `last` is the timestamp of the newest line had."""

    api: Api
    pod: Object
    note: Note = print
    lines: queue.SimpleQueue[LogLine | JobctlError] = field(default_factory=queue.SimpleQueue)
    last: str = ""
    done: threading.Event = field(default_factory=threading.Event)
    failing_since: float | None = None  # when its log was first asked for in vain

    @property
    def index(self) -> int:
        return index_of(self.pod)

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    def read(self, follow: bool) -> Iterator[LogLine]:
        """New lines since `last`; with `follow` until the container ends or the connection is cut."""
        query = {"container": "worker", "timestamps": "true", "follow": str(follow).lower()}
        if self.last:
            query["sinceTime"] = self.last[:19] + "Z"  # whole seconds only: what was had already is left out below
        path = self.api.path("pods", self.name, "log")
        with self.api.open(
            "GET", path, f"get pods/log of {self.name}", query=query, read_seconds=SILENT_SECONDS
        ) as response:
            self.failing_since = None
            had = self.last  # up to there: later lines may be dated earlier, where the node's clock was set back
            for raw in split_lines(iter(response.read1, b"")):
                stamp, _, said = raw.decode("utf-8", "replace").partition(" ")
                if not stamp[:1].isdigit():  # the kubelet's own words: it can't retrieve the log of a pod that is gone
                    continue
                if stamp > had:
                    had, self.last = "", stamp
                    yield LogLine(self.index, self.name, said.rstrip("\r"))

    def follow(self, is_over: Callable[[], bool]) -> None:
        """The thread: put every line into `lines` until the pod has ended and its log is read to the end."""
        while True:
            over = is_over()
            try:
                for line in self.read(follow=not over):
                    self.lines.put(line)
                if over:
                    break
            except NotFoundError:
                break  # the pod is gone
            except UnreachableError as error:
                if self._failed_for(error) > LAST_TRY_SECONDS and over:
                    break
            except JobctlError as error:
                if not _is_starting(error):
                    self.lines.put(error)
                    break
            time.sleep(LOOK_SECONDS)
        self.done.set()

    def _failed_for(self, error: UnreachableError) -> float:
        """Seconds for which its log could not be had. Whoever looks at the job says that the API server is away."""
        now = time.monotonic()
        if self.failing_since is None:
            self.failing_since = now
            if not isinstance(error, AwayError):
                self.note(f"[{self.index}] {error}")
        return now - self.failing_since


def stream(
    api: Api,
    look: Callable[[], tuple[Sequence[Object], bool]],
    index: int | None,
    follow: bool,
    older: Callable[[Sequence[Object]], Iterator[LogLine]],
    note: Note,
) -> Iterator[LogLine]:
    """`look` gives the job's pods and whether it has ended; `older` the lines of attempts whose pods are gone.

    `note` is told what the reader should know beside the lines: that the cluster is away, and back.
    """
    pods, ended = look()
    yield from (line for line in older(pods) if index in (None, line.index))
    pods = list(filter(has_log, _of_index(pods, index)))
    if not follow or ended:
        for pod in sorted(pods, key=_age):
            with contextlib.suppress(NotFoundError):
                yield from _waiting_is_silence(Tail(api, pod))
        return
    yield from _followed(api, look, index, note)


def has_log(pod: Object) -> bool:
    """Whether the API server still has its log: not of a pod that has ended and is only kept for the Job controller."""
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return not (ended and "deletionTimestamp" in pod["metadata"])


def some_are_gone(pods: Sequence[Object]) -> bool:
    """Whether an index has had more attempts than it has pods: eviction removes a pod and its log."""
    with_logs = by_index(filter(has_log, pods))
    return any(failures_before(of[-1]) + 1 > len(with_logs.get(index, [])) for index, of in by_index(pods).items())


def from_volume(reader: PodReader, run: str, pods: Sequence[Object]) -> Iterator[LogLine]:
    """The attempts on record of which these pods have no log any more, oldest first."""
    there = {pod["metadata"]["uid"] for pod in filter(has_log, pods)}
    attempts = reader.attempt_records(run)
    gone = [path for path in reader.logs(run) if _attempt_of(path).partition(".")[2] not in there]
    for path in sorted(gone, key=lambda path: _attempt_order(attempts.get(_attempt_of(path)))):
        index, _, uid = _attempt_of(path).partition(".")
        pod = text(attempts.get(_attempt_of(path)), "pod") or uid
        yield from (_line(index, pod, line) for line in split_lines(reader.read(run, path)))


def _attempt_order(record: Any) -> tuple[int, str]:
    """By lease, whatever the clocks were; attempts of several indexes have leases of their own, then by time."""
    return whole(record, "fence") or 0, text(record, "startedAt") or ""


def _attempt_of(path: str) -> str:
    """attempts/INDEX.PODUID.log → INDEX.PODUID"""
    return path.rpartition("/")[2].removesuffix(".log")


def _line(index: str, pod: str, raw: bytes) -> LogLine:
    return LogLine(whole(index) or 0, pod, raw.decode("utf-8", "replace").rstrip("\r"))


def _followed(
    api: Api, look: Callable[[], tuple[Sequence[Object], bool]], index: int | None, note: Note
) -> Iterator[LogLine]:
    tails: dict[str, Tail] = {}
    ended_pods: set[str] = set()
    patience = Patience(note)
    looked = float("-inf")
    ended = False
    while True:
        if time.monotonic() - looked >= LOOK_SECONDS:
            try:
                pods, ended = look()
                patience.answered()
                ended_pods |= {_uid(pod) for pod in pods if _phase(pod) in ("Succeeded", "Failed")}
                for pod in sorted(filter(has_log, _of_index(pods, index)), key=_age):
                    if _uid(pod) not in tails and _phase(pod) != "Pending":
                        tails[_uid(pod)] = _start(Tail(api, pod, note), ended_pods)
            except UnreachableError as error:
                patience.failed(error)
            looked = time.monotonic()
        had = False
        for tail in tails.values():
            while not tail.lines.empty():
                line = tail.lines.get()
                if isinstance(line, JobctlError):
                    raise line
                had = True
                yield line
        if ended and not had and all(tail.done.is_set() for tail in tails.values()):
            return
        time.sleep(0.05)


def _start(tail: Tail, ended_pods: set[str]) -> Tail:
    is_over = partial(ended_pods.__contains__, _uid(tail.pod))
    threading.Thread(target=tail.follow, args=(is_over,), daemon=True).start()
    return tail


def _uid(pod: Object) -> str:
    return str(pod["metadata"]["uid"])


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "Pending")


def _waiting_is_silence(tail: Tail) -> Iterator[LogLine]:
    """A container that has not started yet has no log: that is no error."""
    try:
        yield from tail.read(follow=False)
    except JobctlError as error:
        if not _is_starting(error):
            raise


def _is_starting(error: JobctlError) -> bool:
    """The API server answers 400 for a container that has not started."""
    return "is waiting to start" in str(error) or "ContainerCreating" in str(error)


def index_of(pod: Object) -> int:
    return whole(pod, "metadata", "labels", INDEX_LABEL) or 0


def _of_index(pods: Sequence[Object], index: int | None) -> list[Object]:
    return [pod for pod in pods if index is None or index_of(pod) == index]


def _age(pod: Object) -> tuple[str, int]:
    return str(pod["metadata"].get("creationTimestamp") or ""), index_of(pod)
