"""Several simulators of one replica, a process each. They share nothing but the numbers that are left to do.

This process hands the numbers out, one at a time, and tells what the simulators tell it. A simulator's process leaves
SIGTERM and SIGINT to this one, which ends it when what has ended is recorded, and dies with it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import pickle
import queue
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any

from workers.episodes import ledger
from workers.errors import WorkerError
from workers.rollouts import Plan, Report, record
from workers.runtime import SUMMARY_INTERVAL_SECONDS, die_with_parent, killed_by, processor_ticks

SPAWN = multiprocessing.get_context("spawn")  # a fork would take the threads' locks with it
POLL_SECONDS = 0.2
LEAVE_SECONDS = 10.0  # a simulator that says no more
STOP = "stop"


class SimulatorDiedError(WorkerError):
    """A simulator's process ended by itself."""


def record_side_by_side(
    count: int, plan: Plan, numbers: Sequence[int], should_stop: Callable[[], bool], report: Report
) -> None:
    """As `rollouts.record`, in `count` processes. Each takes the next number when it is free.

    A failure of one stops the others, which record what they have, and is raised then. Raises SimulatorDiedError for
    one that ended without a word, but not after `should_stop()`.
    """
    simulators: list[_Simulator] = []
    try:
        for place in range(count):
            simulators.append(_Simulator(place, plan))
        _Desk(simulators, numbers, should_stop, report).serve()
    finally:
        for simulator in simulators:
            simulator.end()


class _Simulator:
    """One process, as the collecting process sees it."""

    def __init__(self, place: int, plan: Plan) -> None:
        self.place = place
        self.link, theirs = SPAWN.Pipe()
        self.process: SpawnProcess = SPAWN.Process(target=_simulate, args=(theirs, os.getpid(), plan))
        self.process.start()
        theirs.close()
        self._ticks: int | None = None

    def worked(self) -> bool:
        """Whether its main thread has used processor time since the last call."""
        assert self.process.pid is not None
        before, self._ticks = self._ticks, processor_ticks(self.process.pid, self.process.pid)
        return before != self._ticks

    def tell(self, message: int | str | None) -> None:
        with contextlib.suppress(ConnectionError):  # it died: that is noticed where it is listened to
            self.link.send(message)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.link.close()

    def died(self) -> SimulatorDiedError:
        self.process.join(LEAVE_SECONDS)  # its files are closed a moment before its exit code can be read
        code = self.process.exitcode
        how = f"was {killed_by(-code)}" if code is not None and code < 0 else f"ended with code {code}"
        return SimulatorDiedError(f"simulator {self.place} {how}")


class _Desk:
    """Where the simulators ask for numbers and tell what they did."""

    def __init__(
        self, simulators: Sequence[_Simulator], numbers: Sequence[int], should_stop: Callable[[], bool], report: Report
    ) -> None:
        self._working = {simulator.link: simulator for simulator in simulators}
        self._numbers, self._should_stop, self._report = deque(numbers), should_stop, report
        self._starting = set(self._working)  # have given no sign of life yet
        self._stirred: set[Connection] = set()
        self._failure: Exception | None = None
        self._stopped = False

    def serve(self) -> None:
        """Until all simulators have ended. Raises what the first that failed raised."""
        self._report.beat()
        while self._working:
            self._look_at_starting()
            if self._should_stop():
                self._stop()
            for link in connection.wait([*self._working], POLL_SECONDS):
                assert isinstance(link, Connection)
                self._listen(link)
        if self._failure is not None:
            raise self._failure

    def _look_at_starting(self) -> None:
        """Those that still import, or make their environment, can't say that they live: their processor time does."""
        for link in self._starting & self._working.keys():
            if self._working[link].worked():
                self._count_sign(link)

    def _stop(self) -> None:
        if not self._stopped:
            self._stopped = True
            for simulator in self._working.values():
                simulator.tell(STOP)

    def _listen(self, link: Connection) -> None:
        try:
            what, *content = link.recv()
        except (EOFError, ConnectionError):
            died = self._working.pop(link).died()
            if not self._should_stop():
                self._fail(died)
            return
        getattr(self, f"_on_{what}")(link, *content)

    def _fail(self, failure: Exception) -> None:
        self._failure = self._failure or failure
        self._stop()

    def _on_next(self, link: Connection) -> None:
        number = self._numbers.popleft() if self._numbers and not self._stopped else None
        self._working[link].tell(number)

    def _on_beat(self, link: Connection) -> None:
        self._starting.discard(link)
        self._count_sign(link)

    def _count_sign(self, link: Connection) -> None:
        """A sign of life is passed on when all have given one: one that stands still is not covered by the others."""
        self._stirred.add(link)
        if self._stirred >= self._working.keys():
            self._stirred.clear()
            self._report.beat()

    def _on_wait(self, link: Connection, why: str) -> None:
        self._report.wait(why)

    def _on_episode(self, link: Connection, entry: ledger.Entry, size_bytes: int, seconds: float) -> None:
        self._report.episode(entry, size_bytes, seconds)

    def _on_failed(self, link: Connection, failure: Exception) -> None:
        del self._working[link]
        self._fail(failure)

    def _on_done(self, link: Connection) -> None:
        del self._working[link]


# ---- in a simulator's process


def _simulate(link: Connection, parent: int, plan: Plan) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # the supervisor asks, where nothing goes on
    die_with_parent(parent)
    desk = _Link(link)
    try:
        record(plan, desk.numbers(), desk.stopped.is_set, desk)
    except Exception as error:  # noqa: BLE001 - raised again in the collecting process
        desk.send("failed", _portable(error))
    else:
        desk.send("done")
    os._exit(0)  # all is said: an interpreter that ends in order still meets the threads of zarr


def _portable(error: Exception) -> Exception:
    """The error, or one that says the same, for a process that can't make its type from its arguments."""
    if not isinstance(error, WorkerError):
        error.add_note(f"In a simulator's process:\n{traceback.format_exc()}")
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - made a moment ago
    except Exception:  # noqa: BLE001 - whatever its type's constructor raises
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


class _Link:
    """The collecting process, as a simulator sees it: a Report, and where the numbers come from."""

    def __init__(self, link: Connection) -> None:
        self.stopped = threading.Event()
        self._link, self._sending = link, threading.Lock()  # the recorder's thread sends too
        self._answers: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._beaten = float("-inf")
        threading.Thread(target=self._listen, name="listener", daemon=True).start()

    def numbers(self) -> Iterator[int]:
        while not self.stopped.is_set():
            self.send("next")
            number = self._answers.get()
            if number is None:
                return
            yield number

    def beat(self) -> None:
        if time.monotonic() - self._beaten >= SUMMARY_INTERVAL_SECONDS:
            self._beaten = time.monotonic()
            self.send("beat")

    def wait(self, why: str) -> None:
        self.send("wait", why)

    def episode(self, entry: ledger.Entry, size_bytes: int, seconds: float) -> None:
        self.send("episode", entry, size_bytes, seconds)

    def send(self, what: str, *content: Any) -> None:
        with self._sending:
            self._link.send((what, *content))

    def _listen(self) -> None:
        with contextlib.suppress(EOFError, ConnectionError):
            while (message := self._link.recv()) != STOP:
                self._answers.put(message)
        self.stopped.set()
        self._answers.put(None)
