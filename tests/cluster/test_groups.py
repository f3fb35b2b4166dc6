"""Four replicas that train together on the fake A100 node: one run, whoever is evicted."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import Runs, place

REPLICAS, STEPS = 4, 200
SETTINGS = {"steps": STEPS, "batch": 64, "validateEverySteps": 100}


@pytest.fixture(scope="module")
def runs(make_namespace: Callable[..., Any], tiny_dataset: Path) -> Runs:
    namespace = make_namespace("groups")
    place(tiny_dataset, namespace.volume)
    return Runs(namespace, ("--gpu", "a100", "--replicas", str(REPLICAS)), SETTINGS)


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
    evicted_at = runs.evict(gone)
    assert runs.wait("evicted") == 0

    attempts = runs.attempts("evicted")
    assert [record["index"] for record, _ in attempts] == [0, 1, 2, 2, 3]
    end = attempts[2][0]["end"]
    assert end["exitCode"] == 75
    saved = int(re.search(r"saved after step (\d+)", end["reason"])[1])
    assert f"resuming from step-{saved:08d}" in attempts[0][1]
    later = min(line["time"] for line in runs.metrics("evicted") if line["step"] > saved)
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
