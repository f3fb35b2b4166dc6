"""What tests do to a worker's processes from within, without a line for it in the workers themselves.

Python imports a module of this name when it starts. A test puts this directory before the others of PYTHONPATH (of a
spec's `env`: a copy on the volume), and says what it wants:

JOBCTL_TEST_FAULT={"fault": a name of FAULTS, "at": what is published (DIRECTORY/NAME, without the number of the lease),
"moments": {number of a lease: [names of MOMENTS]}}: the loop that holds this lease meets the fault just before each.

JOBCTL_TEST_PACE=10 or 0: the pace of its steps, see loop_pace.py.
"""

import json
import os
import signal
import sys
import threading

LOOP, SIMULATOR = "workers.loop", "--multiprocessing-fork"  # arguments by which their processes are known
# In the life of a publication: audit event, which of its arguments is a path, and what stands before the name in it.
MOMENTS = {
    "write": ("os.mkdir", 0, ".tmp-"),
    "rename": ("os.rename", 1, ""),
    "remove": ("os.rename", 1, ".tmp-"),
}


def exhaust_memory() -> None:
    limit = 4 << 30  # bytes; written to, as memory that is only asked for costs nothing
    print(f"a test has this attempt write to {limit >> 30} GiB of memory", flush=True)
    bytearray(b"\1") * limit


def freeze() -> None:
    print("a test stops this loop", flush=True)
    signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)  # all threads, and this one at once


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


FAULTS = {"exhaust-memory": exhaust_memory, "freeze": freeze, "kill": kill}


def expect(fault: str, at: str, moments: dict[str, list[str]]) -> None:
    expected = [MOMENTS[moment] for moment in moments.get(os.environ["JOBCTL_FENCE"], [])]
    directory, published = at.split("/")

    def watch(name: str, arguments: tuple[object, ...]) -> None:
        for event, argument, mark in expected:
            if name == event and f"/{directory}/{mark}{published}." in str(arguments[argument]):
                FAULTS[fault]()

    if expected:
        sys.addaudithook(watch)


if LOOP in sys.orig_argv and (wanted := os.environ.get("JOBCTL_TEST_FAULT")):
    expect(**json.loads(json.loads(wanted) if wanted.startswith('"') else wanted))  # --set may have left it quoted
if {LOOP, SIMULATOR} & set(sys.orig_argv) and (pace := os.environ.get("JOBCTL_TEST_PACE")):
    import loop_pace

    loop_pace.adopt(float(pace))
