"""Watching a job until it ends: one live line on a terminal, otherwise a line now and then when something changed."""

from __future__ import annotations

import math
import re
import sys
import time
from dataclasses import dataclass, field
from typing import TextIO

from jobctl.cli.document import progress_document, progress_text
from jobctl.cli.output import in_one_line
from jobctl.cli.session import Session
from jobctl.errors import JobctlError, UnreachableError
from jobctl.patience import Patience
from jobctl.progress import Progress
from jobctl.status import ACTIVE, JobView, is_ended

POLL_SECONDS = 5.0  # at the longest between two looks
QUIET_SECONDS = 5.0  # between two progress lines where there is no terminal
CLEAR_LINE = "\r\x1b[K"


class WaitTimeoutError(JobctlError):
    """The job goes on, the waiting doesn't."""

    exit_status = 124  # as timeout(1)


@dataclass
class Display:
    """Prints what changed. State changes are lines of their own; progress overwrites itself on a terminal."""

    stream: TextIO
    live: bool
    _state: str = ""
    _progress: str = ""
    _printed_at: float = field(default=float("-inf"))
    _has_live_line: bool = False

    def show(self, job: JobView, progress: str, now_seconds: float) -> None:
        state = f"{job.name}: {job.state}" + ("" if job.reason == job.state else f": {job.reason}")
        # A back-off counts down: the same sentence with another number is no news.
        if (same := re.sub(r"\d+", "#", state)) != self._state:
            self._line(state)
            self._state = same
        if progress == self._progress or job.state not in ACTIVE:
            return
        if self.live:
            self.stream.write(f"{CLEAR_LINE}{in_one_line(f'{job.name}: {progress}')}")
            self.stream.flush()
            self._has_live_line, self._progress = True, progress
        elif now_seconds - self._printed_at >= QUIET_SECONDS:
            self._line(f"{job.name}: {progress}")
            self._progress, self._printed_at = progress, now_seconds

    def close(self) -> None:
        """Leave the live line as it is and go below it."""
        if self._has_live_line:
            self.stream.write("\n")
            self.stream.flush()
            self._has_live_line = False

    def _line(self, text: str) -> None:
        self.stream.write((CLEAR_LINE if self._has_live_line else "") + in_one_line(text) + "\n")
        self.stream.flush()
        self._has_live_line = False


def watch(
    session: Session, name: str, *, timeout_seconds: float | None = None, stream: TextIO | None = None
) -> JobView:
    """Show the job until it ends, and return its end. Raises NotFoundError, WaitTimeoutError, KeyboardInterrupt."""
    stream = stream or sys.stdout
    display = Display(stream, live=stream.isatty())
    start = time.monotonic()
    looks = Looks(session, name)
    try:
        while True:
            job, progress = looks.look()
            text = progress_text(progress_document(progress), job.kind) if progress else ""
            display.show(job, text, time.monotonic())
            if is_ended(job):
                return job
            left = math.inf if timeout_seconds is None else start + timeout_seconds - time.monotonic()
            if left <= 0:
                raise WaitTimeoutError(
                    f"{name} has not ended after {timeout_seconds:g} s: it is {job.state} and goes on."
                )
            session.backend.wait_for_change(name, min(POLL_SECONDS, left))
    finally:
        display.close()


class Looks:
    """Looks at a job, time and again: an API server that is away for a while ends no waiting that has begun."""

    def __init__(self, session: Session, name: str) -> None:
        self._session, self._name = session, name
        self._patience = Patience(session.note)
        self._last: tuple[JobView, Progress | None] | None = None

    def look(self) -> tuple[JobView, Progress | None]:
        """The job and its progress now; what they were last while the API server is away.

        Raises UnreachableError at the first look, or once the server has been away for too long.
        """
        try:
            record, job = self._session.view(self._name)
            self._last = job, self._session.progress(record, job)
            self._patience.answered()
        except UnreachableError as error:
            if self._last is None:
                raise
            self._patience.failed(error)
            time.sleep(1)
        return self._last


def exit_status_of(job: JobView) -> int:
    """0 for a job that succeeded, 1 for any other end."""
    return 0 if job.state == "succeeded" else 1
