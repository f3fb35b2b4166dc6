"""A supervisor's sign of life beside status.json: who it is, when it last was, and which status it knows.

status.json is written when something changes, so its age says nothing. The pulse is written in place every few seconds,
into bytes that the file has already: a full disk keeps a supervisor from writing its status, and not from saying so.
"""

import contextlib
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobctl.local.state import Identity
from jobctl.untrusted import UnreadableError, number, read_object, whole

NAME = "pulse.json"
EVERY_SECONDS = 2.0
SILENT_SECONDS = 30.0  # a machine that swaps, or storage that stalls, holds a supervisor up for seconds
BYTES = 256


@dataclass(frozen=True)
class Pulse:
    """`serial`: of the newest status that it has, whether or not it could be written. `seconds`: monotonic, which no
    change of the clock moves, and which all processes of one boot share."""

    supervisor: Identity | None
    serial: int
    seconds: float

    def write(self, directory: Path) -> None:
        """What can't be written isn't: its age then tells."""
        document = {
            "supervisor": self.supervisor.as_dict() if self.supervisor else None,
            "serial": self.serial,
            "seconds": round(self.seconds, 3),
        }
        with contextlib.suppress(OSError):
            descriptor = os.open(directory / NAME, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
            try:
                os.pwrite(descriptor, json.dumps(document).ljust(BYTES).encode(), 0)
            finally:
                os.close(descriptor)

    @classmethod
    def read(cls, directory: Path) -> "Pulse | None":
        """None where there is none that can be read."""
        try:
            found = read_object(directory, NAME, most_bytes=BYTES)
        except (UnreadableError, OSError):
            return None
        serial, seconds = whole(found, "serial"), number(found, "seconds")
        if serial is None or seconds is None:
            return None
        return cls(Identity.from_dict(found.get("supervisor")), serial, seconds)

    def doubt(self, status: dict[str, Any]) -> str | None:
        """Why a status that was read after this pulse is not what its living supervisor knows; None where it is."""
        supervisor = f"its supervisor (process {self.supervisor.pid if self.supervisor else 'unknown'})"
        if (whole(status, "serial") or 0) < self.serial:
            return f"what is known of it is stale: {supervisor} knows more than it could write to status.json"
        silent = time.monotonic() - self.seconds
        if silent > SILENT_SECONDS:
            return f"what is known of it is stale: {supervisor} has not been heard of for {silent:.0f} s"
        return None
