"""`python -m workers {collect,train,eval} --config FILE`: PID 1 of a worker's container."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

KINDS = ("collect", "train", "eval")


def parse(arguments: Sequence[str], program: str) -> tuple[str, Path]:
    """(kind, path of the config file). Exits with argparse's message if they are wrong."""
    parser = argparse.ArgumentParser(prog=program, description="Runs one index of a job of jobctl.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument(
        "--config", type=Path, required=True, metavar="FILE", help="the config file that the chart mounts"
    )
    parsed = parser.parse_args(arguments)
    return parsed.kind, parsed.config


if __name__ == "__main__":
    from workers import supervise

    sys.exit(supervise.main(*parse(sys.argv[1:], program="python -m workers")))
