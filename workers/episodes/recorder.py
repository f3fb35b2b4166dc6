"""Writes episodes behind the simulator's back: one thread, published in the order of hand-over."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from workers.episodes.ledger import Entry
from workers.episodes.writer import Episode, write_episode
from workers.room import FULL_DISK

RETRY_SECONDS = 5.0
POLL_SECONDS = 0.2


class Recorder:
    """Records episodes in a thread of its own; compression and fsync overlap with simulation.

    At most `room` episodes are handed over and not yet recorded. `on_recorded(entry)` is called in that thread after
    each. A full disk is waited for (a try leaves nothing behind, the episode stays in memory) until there is room or
    `should_stop()`; `on_wait(sentence)` is called all the while. Any other failure is raised by the next `put`, or by
    leaving the `with` block.
    """

    def __init__(
        self,
        dataset: Path,
        fence: int,
        *,
        on_recorded: Callable[[Entry], None],
        on_wait: Callable[[str], None],
        should_stop: Callable[[], bool],
        room: int = 1,
    ) -> None:
        self._dataset = dataset
        self._fence = fence
        self._on_recorded = on_recorded
        self._on_wait = on_wait
        self._should_stop = should_stop
        self._room = threading.Semaphore(room)
        self._queue: queue.SimpleQueue[Episode | None] = queue.SimpleQueue()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    def __enter__(self) -> Recorder:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits until everything handed over is recorded, also when the loop was told to stop; raises what failed."""
        self._queue.put(None)
        self._thread.join()
        if kind is None:
            self._raise_failure()

    def put(self, episode: Episode) -> bool:
        """Hands over an episode; waits for room. False if `should_stop` said so first: it is dropped."""
        while not self._should_stop():
            self._raise_failure()
            if self._room.acquire(timeout=POLL_SECONDS):
                self._queue.put(episode)
                return True
        return False

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        try:
            while self._record_next():
                self._room.release()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that hands over
            self._failure = error

    def _record_next(self) -> bool:
        """False at the end. The episode's memory is free when this returns."""
        episode = self._queue.get()
        entry = None if episode is None else self._write(episode)
        if entry is None:
            return False
        self._on_recorded(entry)
        return True

    def _write(self, episode: Episode) -> Entry | None:
        while True:
            try:
                return write_episode(self._dataset, episode, self._fence)
            except OSError as error:
                if error.errno not in FULL_DISK:
                    raise
                what = f"the volume {FULL_DISK[error.errno]}: episode {episode.number} waits in memory for room"
            again = time.monotonic() + RETRY_SECONDS
            while time.monotonic() < again:
                if self._should_stop():
                    return None
                self._on_wait(what)
                time.sleep(POLL_SECONDS)
