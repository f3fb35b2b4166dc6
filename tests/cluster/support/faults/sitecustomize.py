"""Faults that a worker meets as it publishes a checkpoint, without a line for it in the workers themselves.

Python imports a module of this name when it starts. A test puts this one on the volume, and into a spec's `env`
PYTHONPATH (the directory), JOBCTL_TEST_FAULT (a name of FAULTS) and JOBCTL_TEST_CHECKPOINT (step-SSSSSSSS). Only the
loop of the run's first lease meets the fault.
"""

import os
import signal
import sys


def exhaust_memory() -> None:
    limit = 4 << 30  # bytes; written to, as memory that is only asked for costs nothing
    print(f"a test has this attempt write to {limit >> 30} GiB of memory", flush=True)
    bytearray(b"\1") * limit


def freeze() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


FAULTS = {"exhaust-memory": exhaust_memory, "freeze": freeze}


def watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "os.rename" and f"/checkpoints/{os.environ['JOBCTL_TEST_CHECKPOINT']}." in str(arguments[1]):
        FAULTS[os.environ["JOBCTL_TEST_FAULT"]]()


if "workers.loop" in sys.orig_argv and os.environ.get("JOBCTL_FENCE") == "1" and "JOBCTL_TEST_FAULT" in os.environ:
    sys.addaudithook(watch)
