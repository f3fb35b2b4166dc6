"""How tests wait for what others do: one helper, patient in the measure of JOBCTL_TEST_PACE (docs/contributing.md)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")
PACE = float(os.environ.get("JOBCTL_TEST_PACE") or 1)  # how many times longer than usual a step takes; 0: no time
POLL_SECONDS = 0.02


def patience(seconds: float) -> float:
    """The time after which a test gives up, where loops may be slower than usual."""
    return seconds * max(1.0, PACE)


def wait_for(
    what: str,
    holds: Callable[[], Found],
    seconds: float = 30,
    picture: Callable[[], object] = str,
    every_seconds: float = POLL_SECONDS,
) -> Found:
    """What `holds` returns once that is true; otherwise a failure that names `what` and shows `picture`."""
    deadline = time.monotonic() + patience(seconds)
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience(seconds):.0f} s: {what}\n{picture()}")
        time.sleep(every_seconds)
    return found
