"""Faults that a worker meets as it saves, without a line for them in the workers themselves.

Python imports a module of this name when it starts. A test puts this one on the volume and, into a spec's `env`,
PYTHONPATH and JOBCTL_TEST_FAULT={"fault": a name of FAULTS, "checkpoint": "step-SSSSSSSS", "moments": {number of a
lease: [names of MOMENTS]}}: the loop that holds this lease meets the fault just before each of these.
"""

import json
import os
import signal
import sys
import threading

# In the life of a checkpoint: audit event, which of its arguments is a path, and what this path holds.
MOMENTS = {
    "write": ("os.mkdir", 0, "/.tmp-{}."),
    "rename": ("os.rename", 1, "/{}."),
    "remove": ("os.rename", 1, "/.tmp-{}."),
}


def exhaust_memory() -> None:
    limit = 4 << 30  # bytes; written to, as memory that is only asked for costs nothing
    print(f"a test has this attempt write to {limit >> 30} GiB of memory", flush=True)
    bytearray(b"\1") * limit


def freeze() -> None:
    print("a test stops this loop", flush=True)
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # all threads, and this one at once


FAULTS = {"exhaust-memory": exhaust_memory, "freeze": freeze}


def expect(fault: str, checkpoint: str, moments: dict[str, list[str]]) -> None:
    expected = [MOMENTS[moment] for moment in moments.get(os.environ["JOBCTL_FENCE"], [])]

    def watch(name: str, arguments: tuple[object, ...]) -> None:
        for event, argument, path in expected:
            if name == event and path.format(checkpoint) in str(arguments[argument]):
                FAULTS[fault]()

    if expected:
        sys.addaudithook(watch)


if "workers.loop" in sys.orig_argv and "JOBCTL_TEST_FAULT" in os.environ:
    expect(**json.loads(os.environ["JOBCTL_TEST_FAULT"]))
