"""A full disk is no fault of a job: it is waited for, and said, until there is room or somebody says stop.

Standard library only.
"""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from workers.errors import InterruptedRun
from workers.runtime import Runtime

FULL_DISK = {errno.ENOSPC: "is full", errno.EDQUOT: "has reached its quota"}
RETRY_SECONDS = 5.0
POLL_SECONDS = 0.2

Found = TypeVar("Found")


def when_there_is_room(call: Callable[[], Found], runtime: Runtime, what: str) -> Found:
    """What `call()` returns: called again every few seconds while the disk is full, with signs of life in between.

    `what` waits for room: "the result". Raises InterruptedRun where somebody says stop meanwhile, and anything but a
    full disk as `call` raises it.
    """
    waits = ""
    while True:
        try:
            found = call()
        except OSError as error:
            if error.errno not in FULL_DISK:
                raise
            why = f"the volume {FULL_DISK[error.errno]}: {what} waits for room"
        else:
            if waits:
                runtime.progress(waiting=None)
            return found
        if why != waits:
            print(why, flush=True)
            waits = why
        _wait(runtime, why)


def _wait(runtime: Runtime, why: str) -> None:
    again = time.monotonic() + RETRY_SECONDS
    while time.monotonic() < again:
        if runtime.stop.is_set():
            raise InterruptedRun(f"told to stop: {why}")
        runtime.progress(waiting=why)
        time.sleep(POLL_SECONDS)
