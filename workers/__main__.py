"""`python -m workers {collect,train,eval} --config FILE`: PID 1 of a worker's container.

`python -m workers read` and `data` are a reader pod's.
"""

import signal
import sys

if __name__ == "__main__":  # a signal that comes while Python still imports waits for the supervisor's handlers
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from workers.errors import BadConfigError

KINDS = ("collect", "train", "eval")
READ = "python -m workers read RUN shows what a run left on the volume."


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(BadConfigError.code, f"{self.prog}: {message}\n")


def parse(arguments: Sequence[str], program: str) -> tuple[str, Path]:
    """(kind, path of the config file). Exits with 64 and one sentence if they are wrong."""
    parser = _Parser(prog=program, description="Runs one index of a job of jobctl.", epilog=READ)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the file that the chart mounts")
    parsed = parser.parse_args(arguments)
    return parsed.kind, parsed.config


if __name__ == "__main__" and sys.argv[1:2] == ["read"]:
    from workers.read import main as read

    sys.exit(read(sys.argv[2:]))

if __name__ == "__main__" and sys.argv[1:2] == ["data"]:
    from workers.data import main as data

    sys.exit(data(sys.argv[2:]))

if __name__ == "__main__":
    from workers.supervise import main

    sys.exit(main(*parse(sys.argv[1:], program="python -m workers")))
