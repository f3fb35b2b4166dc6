"""Four replicas that train together on the fake A100 node: one run, whoever is evicted."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
JOBCTL = Path(sys.executable).parent / "jobctl"
REPLICAS, STEPS = 4, 200
UID = 1000  # of the pods
SETTINGS = {"steps": STEPS, "batch": 64, "validateEverySteps": 100}
SIZES = {"requests": {"cpu": "50m", "memory": "1Gi"}}  # the profile's are those of a real A100's node


def load_dataset_maker() -> Any:
    """The small dataset of the workers' tests."""
    spec = importlib.util.spec_from_file_location("workers_conftest", ROOT / "tests" / "workers" / "conftest.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Runs:
    """Submits trainings of one namespace and looks at what they leave on its volume."""

    def __init__(self, namespace: Any) -> None:
        self.namespace = namespace

    def jobctl(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(JOBCTL), *arguments, "--context", self.namespace.cluster.context, "-n", self.namespace.name]
        return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)

    def submit(self, name: str, *options: str, **keys: Any) -> None:
        settings = [f"--set={key}={json.dumps(value)}" for key, value in SETTINGS.items()]
        sizes = [f"--set=resources.requests.{key}={value}" for key, value in SIZES["requests"].items()]
        flags = ["--gpu", "a100", "--replicas", str(REPLICAS), "--data", "datasets/tiny"]
        done = self.jobctl(
            "submit", "train", "--name", name, "--image", self.namespace.image, *flags, *settings, *sizes, *options
        )
        assert done.returncode == 0, done.stderr

    def wait(self, name: str) -> int:
        return self.jobctl("wait", name).returncode

    def directory(self, name: str) -> Path:
        return self.namespace.volume / "runs" / name

    def step(self, name: str) -> int:
        """The newest step in the run's metrics."""
        lines = [json.loads(line) for line in self.lines(name)]
        return max((line["step"] for line in lines), default=0)

    def lines(self, name: str) -> list[str]:
        files = sorted((self.directory(name) / "metrics").glob("*.jsonl"))
        return [line for file in files for line in file.read_text().splitlines() if line.endswith("}")]

    def weights(self, name: str) -> dict[str, bytes]:
        """The files of the last checkpoint, which are equal to the bit if the tensors are."""
        last = next((self.directory(name) / "checkpoints").glob(f"step-{STEPS:08d}.*"))
        return {file: (last / file).read_bytes() for file in ("model.safetensors", "optimizer.safetensors")}

    def pods(self, name: str) -> dict[int, dict[str, Any]]:
        """The newest pod of each index."""
        key = "batch.kubernetes.io/job-completion-index"
        return {int(pod["metadata"]["labels"][key]): pod for pod in self.namespace.pods(name)}

    def attempts(self, name: str) -> list[tuple[dict[str, Any], str]]:
        """Record and log of each pod that worked, by index and in time: they outlive pods that the Job removes."""
        files = (self.directory(name) / "attempts").glob("*.json")
        found = [(json.loads(file.read_text()), file.with_suffix(".log").read_text()) for file in files]
        return sorted(found, key=lambda attempt: (attempt[0]["index"], attempt[0]["startedAt"]))


@pytest.fixture(scope="module")
def runs(make_namespace: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Runs:
    namespace = make_namespace("groups")
    maker = load_dataset_maker()
    made = maker.announced_dataset.__wrapped__(tmp_path_factory)
    target = namespace.volume / "datasets" / "tiny"
    shutil.copytree(made, target)
    for path in [target.parent, target, *target.rglob("*")]:
        os.chown(path, UID, UID)
    return Runs(namespace)


@pytest.fixture(scope="module")
def undisturbed(runs: Runs) -> str:
    runs.submit("calm", "--allow-cpu")
    assert runs.wait("calm") == 0
    return "calm"


def test_four_replicas_on_the_a100_node_are_one_run(runs, undisturbed):
    attempts = runs.attempts(undisturbed)
    assert [record["index"] for record, _ in attempts] == [0, 1, 2, 3]
    (node,) = {record["node"] for record, _ in attempts}
    assert "A100" in runs.namespace.get("node", node)["metadata"]["labels"]["nvidia.com/gpu.product"]
    for _, log in attempts:
        assert log.count("no GPU for profile a100: computing on the CPU, as allowCpu says") == 1
        assert "of 4 has met the others" in log

    directory = runs.directory(undisturbed)
    assert {path.name for path in (directory / "results").iterdir()} == {"0.000001"}
    assert {path.name[-7:] for path in (directory / "checkpoints").iterdir()} == {".000001"}
    assert {path.name for path in (directory / "metrics").iterdir()} == {"0.000001.jsonl"}


def test_a_worker_that_is_evicted_comes_back_alone_and_the_weights_are_those_of_the_undisturbed_run(runs, undisturbed):
    runs.submit("evicted", "--allow-cpu")
    runs.namespace.wait_for("some steps", lambda: runs.step("evicted") >= 30, 120)
    gone = runs.pods("evicted")[2]["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": gone}}
    path = f"/api/v1/namespaces/{runs.namespace.name}/pods/{gone}/eviction"
    evicted_at = time.time()
    runs.namespace.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(eviction))
    assert runs.wait("evicted") == 0

    attempts = runs.attempts("evicted")
    assert [record["index"] for record, _ in attempts] == [0, 1, 2, 2, 3]
    end = attempts[2][0]["end"]
    assert end["exitCode"] == 75
    saved = int(re.search(r"saved after step (\d+)", end["reason"])[1])
    assert f"resuming from step-{saved:08d}" in attempts[0][1]
    later = min(line["time"] for line in map(json.loads, runs.lines("evicted")) if line["step"] > saved)
    print(f"evicted at step {saved}: next line of metrics after {later - evicted_at:.0f} s")
    assert runs.weights("evicted") == runs.weights(undisturbed)


def test_without_allow_cpu_a_gpu_profile_without_a_device_ends_with_64_and_says_so(runs):
    runs.submit("strict")
    assert runs.wait("strict") == 1
    job = runs.namespace.end("strict")
    failed = next(c for c in job["status"]["conditions"] if c["type"] == "Failed")
    assert failed["reason"] == "PodFailurePolicy" and "64" in failed["message"]
    told = runs.jobctl("status", "strict")
    assert "sees none here" in told.stdout
