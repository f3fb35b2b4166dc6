"""What the supervisor holds: the count of signals, the loop processes with their signs of life, and the watchdog.

Standard library only.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from workers import attempts, runtime, storage

TERMINATED = 128 + signal.SIGTERM  # 143: ended before it could save
TICK_SECONDS = 0.05
LAST_WORDS_SECONDS = 0.7  # after the second SIGTERM


class Told:
    """SIGTERM and SIGINT, counted. A second one ends this process within a second, even if its main thread is stuck."""

    def __init__(self) -> None:
        self.count = 0
        self.since = 0.0
        self.last_words: Callable[[], None] = lambda: None
        self._wakeup, self._ring = socket.socketpair()
        self._ring.setblocking(False)
        signal.set_wakeup_fd(self._ring.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda signum, frame: None)  # counted by the thread, which is never stuck on a disk
        threading.Thread(target=self._listen, name="signals", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM, signal.SIGINT})

    def is_set(self) -> bool:
        return self.count > 0

    def _listen(self) -> None:
        while True:
            for number in self._wakeup.recv(64):
                if number not in (signal.SIGTERM, signal.SIGINT):
                    continue
                self.since = self.since or time.monotonic()
                self.count += 1
                if self.count == 2:
                    threading.Thread(target=self._leave, name="last-words", daemon=True).start()

    def _leave(self) -> None:
        time.sleep(LAST_WORDS_SECONDS)
        self.last_words()
        os._exit(TERMINATED)  # the kernel kills the loops with this process


class LoopProcess:
    """One loop, its output and its signs of life. It runs in a process group of its own, with all that it starts."""

    def __init__(
        self,
        command: Sequence[str],
        env: dict[str, str],
        tmp: Path,
        log: attempts.Log,
        descriptors: Sequence[int] = (),
    ) -> None:
        """`descriptors`: open files that the process inherits."""
        tmp.mkdir(parents=True, exist_ok=True)
        self._directory = Path(tempfile.mkdtemp(prefix="jobctl-", dir=tmp))
        self._summary = self._directory / "summary.json"
        self._sign: tuple[Any, ...] = ()
        self._process = subprocess.Popen(
            command,
            env=env | {"JOBCTL_SUMMARY": str(self._summary)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=descriptors,
        )
        self._reader = threading.Thread(target=self._read, args=(log,), name="loop-output", daemon=True)
        self._reader.start()

    def poll(self) -> int | None:
        return self._process.poll()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def dump_stacks(self) -> None:
        """Have the loop and what it started print their stacks. Who doesn't know SIGUSR1 ends: kill it next."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGUSR1)

    def kill(self) -> None:
        """End the loop and what it started; no harm if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(1.0)

    def summary(self) -> dict[str, Any]:
        return self._read_summary().get("summary", {})

    def close(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)

    def stirred(self) -> bool:
        """Whether the loop gave a sign of life since the last call.

        That is a beat; in one long call, and while it starts, also processor time that its thread has used.
        """
        told = self._read_summary()
        busy = self._busy(told)
        used = runtime.processor_ticks(self._process.pid, busy["thread"]) if busy else None
        before, self._sign = self._sign, (told.get("beat"), used)
        return before != self._sign

    def doing(self) -> str | None:
        """The long call that it is in; None outside of any."""
        busy = self._busy(self._read_summary())
        return busy["doing"] if busy else None

    def waits(self) -> list[Any] | None:
        """The same as long as it waits for others of its group and gets no further; None if it doesn't wait."""
        told = self._read_summary()
        if told.get("waits") is None:
            return None
        used = runtime.processor_ticks(self._process.pid, self._process.pid) if told["computes"] else None
        return [told["waits"], used]

    def _busy(self, told: dict[str, Any]) -> dict[str, Any] | None:
        return told.get("busy") if told else {"doing": "starting", "thread": self._process.pid}

    def _read_summary(self) -> dict[str, Any]:
        with contextlib.suppress(OSError, storage.CorruptError):
            return storage.read_json(self._summary)
        return {}

    def _read(self, log: attempts.Log) -> None:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline(65536):
            log.line(line)


class Watchdog:
    """Adds up the time without a sign of life, of each loop by itself: none is covered by one that goes on.

    A pause of this process itself counts as one look, not as its length.
    """

    def __init__(self, seconds: float, loops: Sequence[LoopProcess]) -> None:
        self.seconds = seconds
        self._still = [0.0] * len(loops)
        self._loops = loops
        self._last = time.monotonic()

    def look(self) -> list[int]:
        """The local ranks that have stood still for too long; looks at most once a second."""
        now = time.monotonic()
        interval = min(1.0, self.seconds / 4)
        if now - self._last < interval:
            return []
        for rank, loop in enumerate(self._loops):
            lives = loop.stirred() or loop.poll() is not None
            self._still[rank] = 0.0 if lives else self._still[rank] + min(now - self._last, 2 * interval)
        self._last = now
        return [rank for rank, still in enumerate(self._still) if still >= self.seconds]


def sleep(seconds: float, told: Told) -> bool:
    """Whether somebody said stop meanwhile."""
    latest = time.monotonic() + seconds
    while time.monotonic() < latest and not told.is_set():
        time.sleep(TICK_SECONDS)
    return told.is_set()
