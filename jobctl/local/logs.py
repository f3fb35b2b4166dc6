"""Reads the logs of a job's attempts, and follows those that still grow."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobctl.backend import LogLine
from jobctl.local.layout import RevisionDir
from jobctl.local.state import read_json

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
            with (self.directory / "log").open("rb") as file:
                file.seek(self.offset)
                while block := file.read(_BLOCK_BYTES):
                    self.offset += len(block)
                    *lines, self.partial = (self.partial + block).split(b"\n")
                    yield from map(self._line, lines)
        except FileNotFoundError:  # the job was deleted under us
            pass
        if last and self.partial:
            yield self._line(self.partial)
            self.partial = b""

    def _line(self, data: bytes) -> LogLine:
        return LogLine(self.index, self.pod, data.decode(errors="replace").removesuffix("\r"))

    @property
    def ended(self) -> bool:
        return (self.directory / "ended").exists()


def attempts(revisions: Sequence[RevisionDir], index: int | None) -> list[Attempt]:
    """All attempts of an index (None: of all), in order of their start."""
    found = []
    for revision in revisions:
        for directory in sorted(revision.pods.glob("*"), key=lambda path: int(path.name)):
            try:
                about = read_json(directory / "attempt.json")
            except FileNotFoundError:  # being created, or deleted, just now
                continue
            if index is None or about["index"] == index:
                found.append(Attempt(directory, about["index"], about["pod"]))
    return found


def stream(
    revisions: Callable[[], Sequence[RevisionDir]],
    index: int | None,
    follow: bool,
    may_grow: Callable[[], bool],
) -> Iterator[LogLine]:
    """Lines of all attempts, oldest first; those that run at the same time are interleaved while they are followed."""
    open_attempts: dict[Path, Attempt] = {}
    done: set[Path] = set()
    while True:
        growing = follow and may_grow()  # asked before reading: what is written until the end is read after it
        for attempt in attempts(revisions(), index):
            if attempt.directory not in done:
                open_attempts.setdefault(attempt.directory, attempt)
        for attempt in [*open_attempts.values()]:
            ended = attempt.ended
            yield from attempt.read(last=ended or not growing)
            if ended:
                done.add(attempt.directory)
                del open_attempts[attempt.directory]
        if not growing:
            return
        time.sleep(POLL_SECONDS)
