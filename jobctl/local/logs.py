"""Reads the logs of a job's attempts, and follows those that still grow."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobctl.backend import LogLine
from jobctl.local.layout import RevisionDir
from jobctl.untrusted import MOST_LINE_BYTES, UnreadableError, open_below, read_object, text, whole

POLL_SECONDS = 0.1
_BLOCK_BYTES = 1 << 20


@dataclass
class Attempt:
    """A reader's place in one attempt's log."""

    directory: Path
    index: int
    pod: str
    offset: int = 0
    partial: bytes = b""

    def read(self, last: bool) -> Iterator[LogLine]:
        """Whole lines written since; with `last` also what stands after the last line end."""
        try:
            with open_below(self.directory, ("log",)) as file:
                file.seek(self.offset)
                while block := file.read(_BLOCK_BYTES):
                    self.offset += len(block)
                    *lines, self.partial = (self.partial + block).split(b"\n")
                    yield from map(self._line, lines)
                    while len(self.partial) > MOST_LINE_BYTES:
                        yield self._line(self.partial[:MOST_LINE_BYTES])
                        self.partial = self.partial[MOST_LINE_BYTES:]
        except OSError:  # the job was deleted under us, or the log is no file any more
            pass
        if last and self.partial:
            yield self._line(self.partial)
            self.partial = b""

    def _line(self, data: bytes) -> LogLine:
        return LogLine(self.index, self.pod, data.decode(errors="replace").removesuffix("\r"))

    @property
    def ended(self) -> bool:
        return (self.directory / "ended").exists()


def new_attempts(revisions: Sequence[RevisionDir], known: set[Path]) -> list[Attempt]:
    """Attempts that aren't in `known` yet, in order of their start."""
    found = []
    for revision in revisions:
        for directory in [path for path in revision.attempts if path not in known]:
            try:
                about = read_object(directory, "attempt.json")
            except (UnreadableError, OSError):  # being created, or deleted, just now
                continue
            found.append(Attempt(directory, whole(about, "index") or 0, text(about, "pod") or ""))
    return found


def stream(
    revisions: Callable[[], Sequence[RevisionDir]],
    index: int | None,
    follow: bool,
    may_grow: Callable[[], bool],
) -> Iterator[LogLine]:
    """Lines of all attempts, oldest first; those that run at the same time are interleaved while they are followed."""
    unread: list[Attempt] = []
    known: set[Path] = set()
    while True:
        growing = follow and may_grow()  # asked before reading: what is written until the end is read after it
        for attempt in new_attempts(revisions(), known):
            known.add(attempt.directory)
            if index is None or attempt.index == index:
                unread.append(attempt)
        for attempt in [*unread]:
            ended = attempt.ended
            yield from attempt.read(last=ended or not growing)
            if ended:
                unread.remove(attempt)
        if not growing:
            return
        time.sleep(POLL_SECONDS)
