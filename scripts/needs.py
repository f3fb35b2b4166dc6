"""Measures what one replica of each kind of job takes on a CPU: the figures of workers/needs.py.

python scripts/needs.py [--only train] [--keep DIRECTORY]

Runs real workers, each alone, on a dataset that they collect first, and looks at their processes five times a second.
Memory is what no other process could lend: the anonymous pages of all processes of the replica, and once what they map
from files and share. It is what a container is charged for, less the page cache, which goes when room is short.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workers import __version__

LOOK_SECONDS = 0.2
MIB = 2**20
TICKS = os.sysconf("SC_CLK_TCK")
SHORT = {"bootstrap": 1000}
CASES: tuple[tuple[str, str, dict[str, Any], dict[str, Any]], ...] = (
    # kind, what is looked for, settings, other keys of the config
    ("collect", "two simulators, short episodes", {"episodes": 8, "envs": 2, "maxSteps": 20}, {"data": "datasets/two"}),
    (
        "collect",
        "six simulators, short episodes",
        {"episodes": 24, "envs": 6, "maxSteps": 20},
        {"data": "datasets/six"},
    ),
    ("collect", "four simulators", {"episodes": 36, "envs": 4}, {"data": "datasets/four"}),
    ("collect", "four, twice as long episodes", {"episodes": 8, "envs": 4, "maxSteps": 400}, {"data": "datasets/long"}),
    ("train", "defaults", {"steps": 600}, {}),
    ("train", "large model, large batch", {"steps": 40, "model": "large", "batch": 16384}, {}),
    ("train", "large model, twice that batch", {"steps": 40, "model": "large", "batch": 32768}, {}),
    ("train", "two processes in one pod", {"steps": 600}, {"gpusPerReplica": 2, "device": "cuda", "allowCpu": True}),
    ("eval", "defaults", SHORT, {"from": "train-0"}),
    ("eval", "large model's weights, large batch", SHORT | {"batch": 1048576}, {"from": "train-1"}),
)


@dataclass
class Peak:
    """The most that was seen at one moment, and the CPU time of all of it."""

    memory_bytes: int = 0
    shared_bytes: int = 0
    cpu_seconds: dict[int, float] = field(default_factory=dict)

    def look(self, root: int) -> None:
        anonymous = mapped = shared = 0
        for pid in descendants(root):
            try:
                status = dict(
                    line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
                )
                times = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended meanwhile
            anonymous += kib(status, "RssAnon")
            mapped, shared = max(mapped, kib(status, "RssFile")), max(shared, kib(status, "RssShmem"))
            self.cpu_seconds[pid] = (int(times[11]) + int(times[12])) / TICKS
        self.memory_bytes = max(self.memory_bytes, anonymous + mapped + shared)
        self.shared_bytes = max(self.shared_bytes, shared)


def kib(status: dict[str, str], name: str) -> int:
    return int(status.get(name, "0 kB").split()[0]) * 1024


def descendants(root: int) -> list[int]:
    found = [root]
    for pid in found:
        try:
            tasks = Path(f"/proc/{pid}/task").iterdir()
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def run(number: int, kind: str, settings: dict[str, Any], keys: dict[str, Any], volume: Path) -> tuple[Peak, float]:
    """One replica from start to end; its peak and its seconds."""
    name = f"{kind}-{number}"
    config = {"version": __version__, "run": name, "kind": kind, "task": "predictor", "specHash": "a" * 16}
    config |= {"data": "datasets/four", "settings": settings} | keys
    path = volume / f"{name}.json"
    path.write_text(json.dumps(config))
    env = os.environ | {"JOBCTL_VOLUME": str(volume), "JOBCTL_TMP": str(volume / "tmp"), "JOBCTL_POD_IP": "127.0.0.9"}
    command = [sys.executable, "-m", "workers", kind, "--config", str(path)]
    began, peak = time.monotonic(), Peak()
    with path.with_suffix(".log").open("wb") as log:
        worker = subprocess.Popen(command, env=env, stdout=log, stderr=log)
        while worker.poll() is None:
            peak.look(worker.pid)
            time.sleep(LOOK_SECONDS)
    if worker.returncode not in (0, 66):  # 66: a dataset this small may miss its check
        sys.exit(f"{name} ended with {worker.returncode}:\n{path.with_suffix('.log').read_text()[-2000:]}")
    return peak, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", help="a kind; train and eval need --keep with the datasets of a run before")
    parser.add_argument("--keep", type=Path, help="the volume to use and to leave behind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        volume = arguments.keep or Path(temporary)
        volume.mkdir(parents=True, exist_ok=True)
        numbers: dict[str, int] = {}
        for kind, what, settings, keys in CASES:
            number = numbers[kind] = numbers.get(kind, -1) + 1
            if arguments.only in (None, kind):
                peak, seconds = run(number, kind, settings, keys, volume)
                busy = sum(peak.cpu_seconds.values()) / seconds
                print(
                    f"{kind:8} {what:36} {peak.memory_bytes / MIB:6.0f} MiB, of it shared "
                    f"{peak.shared_bytes / MIB:4.0f} MiB; {busy:.2f} CPUs over {seconds:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    main()
