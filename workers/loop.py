"""One loop process: `python -m workers.loop KIND --config FILE`, started by the supervisor.

Standard library only until the config is read: signals and the tie to the supervisor come before anything heavy.
"""

import faulthandler
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import NoReturn

from workers.errors import CRASHED, WorkerError
from workers.room import FULL_DISK
from workers.runtime import Runtime, die_with_parent

MODULES = {"collect": "workers.collect", "train": "workers.train", "eval": "workers.evaluate"}


def main(kind: str, config_path: Path) -> int:
    """Run the loop of `kind`; its exit code. A WorkerError is one sentence on stderr, others a traceback and code 1."""
    if supervisor := os.environ.get("JOBCTL_SUPERVISOR_PID"):
        die_with_parent(int(supervisor))
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    try:
        runtime = Runtime.from_env()
    except WorkerError as error:
        print(f"{kind}: {error}", file=sys.stderr, flush=True)
        return error.code
    signal.signal(signal.SIGTERM, lambda signum, frame: runtime.stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code, reason = _run(kind, config_path, runtime)
    runtime.flush_progress(code=code, reason=reason)
    if code:
        print(f"{kind}: {reason}", file=sys.stderr, flush=True)
    return code


def _run(kind: str, config_path: Path, runtime: Runtime) -> tuple[int, str]:
    try:
        from workers.config import Config

        config = Config.load(config_path)
        runtime.hold_as(config.run)
        importlib.import_module(MODULES[kind]).run(config, runtime)
    except WorkerError as error:
        return error.code, str(error)
    except OSError as error:
        traceback.print_exc()
        if error.errno in FULL_DISK:
            return CRASHED, f"the volume {FULL_DISK[error.errno]}: {error.filename or runtime.volume} cannot be written"
        return CRASHED, _one_line(error)
    except Exception as error:  # noqa: BLE001 - the one place where any crash becomes an exit code
        traceback.print_exc()
        return CRASHED, _one_line(error)
    return 0, "done"


def leave(code: int) -> NoReturn:
    """End the process with this code, at once.

    All is published and said by now. An interpreter that ends in order still meets the threads of torch and zarr, and
    a crash there would make a finished run a failed attempt.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


if __name__ == "__main__":
    from workers.__main__ import parse

    leave(main(*parse(sys.argv[1:], program="python -m workers.loop")))
