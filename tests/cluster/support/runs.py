"""Trainings of one namespace: submitted by jobctl, watched through the API, judged by what they leave on the volume."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from held import hold_at, release, wait_until_held
from waiting import PACE, patience

ROOT = Path(__file__).resolve().parents[3]
FAULTS = ROOT / "tests" / "support" / "faults"
SOURCE = "/opt/source"  # PYTHONPATH in docker/worker.Dockerfile
JOBCTL = Path(sys.executable).parent / "jobctl"
UID = 1000  # of the pods
INDEX = "batch.kubernetes.io/job-completion-index"
Dict = dict[str, Any]


def make_tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small dataset of the workers' tests."""
    spec = importlib.util.spec_from_file_location("workers_conftest", ROOT / "tests" / "workers" / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.announced_dataset.__wrapped__(tmp_path_factory)


def place_faults(volume: Path) -> str:
    """Put what tests do to workers from within on a volume; the PYTHONPATH by which pods find it."""
    directory = volume / "faults"
    directory.mkdir(exist_ok=True)
    for file in (*FAULTS.glob("*.py"), ROOT / "tests" / "workers" / "episodes" / "fake_environment.py"):
        (directory / file.name).write_text(file.read_text())
    for path in (directory, *directory.iterdir()):
        os.chown(path, UID, UID)
    return f"/shared/{directory.name}:{SOURCE}"


def paced(volume: Path) -> list[str]:
    """Options of `submit` by which loops have the pace of JOBCTL_TEST_PACE."""
    if PACE == 1:
        return []
    return [f"--set=env.PYTHONPATH={place_faults(volume)}", f"--set=env.JOBCTL_TEST_PACE={PACE:g}"]


def place(dataset: Path, volume: Path) -> None:
    """Copy a dataset to datasets/NAME of a volume, as if a pod had written it."""
    target = volume / "datasets" / dataset.name
    shutil.copytree(dataset, target)
    for path in [target.parent, target, *target.rglob("*")]:
        os.chown(path, UID, UID)


@dataclass(frozen=True)
class Runs:
    """Submits trainings of one namespace and looks at what they leave on its volume.

    `flags` of `jobctl submit train` and `settings` hold for all of them.
    """

    namespace: Any
    flags: Sequence[str]
    settings: Mapping[str, Any]
    requests: Mapping[str, str] = field(default_factory=lambda: {"cpu": "50m", "memory": "1Gi"})

    def jobctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(JOBCTL), *arguments, "--context", self.namespace.cluster.context, "-n", self.namespace.name]
        return subprocess.run(command, capture_output=True, text=True, timeout=patience(280), check=False)

    def done(self, *arguments: str) -> str:
        """What a command prints that has to end with 0."""
        done = self.jobctl(*arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def submit(self, name: str, *options: str, **settings: Any) -> None:
        """`jobctl submit train`; `settings` take the place of those of the same name that all runs have."""
        merged = {**self.settings, **settings}
        shown = {key: value if isinstance(value, str) else json.dumps(value) for key, value in merged.items()}
        sets = [f"--set={key}={value}" for key, value in shown.items()]
        sets += [f"--set=resources.requests.{key}={value}" for key, value in self.requests.items()]
        given = ["--data", "datasets/tiny", "--image", self.namespace.image, *self.flags]
        self.done("submit", "train", "--name", name, *given, *sets, *paced(self.namespace.volume), *options)

    def submit_held(self, name: str, step: int, *options: str, indexes: Iterable[int] = (0,)) -> list[Dict]:
        """`submit`, and who is held at that step, once they are."""
        self.submit(name, hold_at(step), *options)
        return self.held(name, indexes)

    def held(self, name: str, indexes: Iterable[int] = (0,), **lowest: int) -> list[Dict]:
        return wait_until_held(
            self.namespace.volume, name, indexes, **lowest, seconds=150, picture=self.namespace.picture
        )

    def release(self, name: str, until: int | None = None) -> None:
        release(self.namespace.volume, name, until)

    def wait(self, name: str) -> int:
        return self.jobctl("wait", name).returncode

    def directory(self, name: str) -> Path:
        return self.namespace.volume / "runs" / name

    def step(self, name: str) -> int:
        """The newest step in the run's metrics."""
        return max((line["step"] for line in self.metrics(name)), default=0)

    def saved(self, name: str) -> list[str]:
        """The names of the run's checkpoints, in order."""
        return sorted(path.name for path in (self.directory(name) / "checkpoints").glob("step-*"))

    def metrics(self, name: str) -> list[Dict]:
        """The lines of all attempts, in the order of their fencing numbers; one that is being written is left out."""
        files = sorted((self.directory(name) / "metrics").glob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines() if line.endswith("}")]

    def weights(self, name: str) -> dict[str, bytes]:
        """The files of the last step's checkpoint, which are equal to the bit if the tensors are."""
        last = max((self.directory(name) / "checkpoints").glob(f"step-{self.settings['steps']:08d}.*"))
        return {file: (last / file).read_bytes() for file in ("model.safetensors", "optimizer.safetensors")}

    def fence(self, name: str) -> int:
        """The number of the run's newest lease."""
        return max(int(path.name) for path in (self.directory(name) / "lease" / "0").iterdir() if path.name.isdigit())

    def lease(self, name: str, number: int) -> Dict:
        return json.loads((self.directory(name) / "lease" / "0" / f"{number:06d}").read_text())

    def pods(self, name: str) -> dict[int, Dict]:
        """The newest pod of each index."""
        return {int(pod["metadata"]["labels"][INDEX]): pod for pod in self.namespace.pods(name)}

    def attempts(self, name: str) -> list[tuple[Dict, str]]:
        """Record and log of each pod that worked, by index and in time: they outlive pods that the Job removes."""
        files = (self.directory(name) / "attempts").glob("*.json")
        found = [(json.loads(file.read_text()), file.with_suffix(".log").read_text()) for file in files]
        return sorted(found, key=lambda attempt: (attempt[0]["index"], attempt[0]["startedAt"]))

    def evict(self, pod: str) -> float:
        """By the API, as a drain does; the time at which it was asked."""
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod}}
        path = f"/api/v1/namespaces/{self.namespace.name}/pods/{pod}/eviction"
        asked = time.time()
        self.namespace.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
        return asked
