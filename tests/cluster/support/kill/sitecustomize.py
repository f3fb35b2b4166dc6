"""SIGKILL at the worst moment: when all is written, and only the rename that publishes it is missing.

Python imports a module of this name when it starts. A test puts this one on the volume, and into a spec's `env`
PYTHONPATH (the directory) and JOBCTL_TEST_KILL_BEFORE (a part of the path that is published). Only a loop that holds
an index's first lease is killed.
"""

import os
import signal
import sys


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "os.rename" and os.environ["JOBCTL_TEST_KILL_BEFORE"] in str(arguments[1]):
        os.kill(os.getpid(), signal.SIGKILL)


if (
    "workers.loop" in sys.orig_argv
    and os.environ.get("JOBCTL_FENCE") == "1"
    and "JOBCTL_TEST_KILL_BEFORE" in os.environ
):
    sys.addaudithook(watch)
