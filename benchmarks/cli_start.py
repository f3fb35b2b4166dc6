"""Claim: `jobctl --help` answers in 100 ms, sooner than a click program that does nothing."""

import sys
from pathlib import Path

from paired import command, compare

BIN = Path(sys.executable).parent
BARE = "import click\n@click.command()\ndef main(): pass\nmain(['--help'])"

if __name__ == "__main__":
    compare(
        "jobctl --help against a bare click program",
        command("jobctl --help", [str(BIN / "jobctl"), "--help"]),
        command("bare click", [sys.executable, "-c", BARE]),
        runs=15,
    )
