"""Four replicas that train together: on the fake A100 node as one run, whoever is evicted, and over two nodes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from equality import allowed_difference, samples_of
from held import wait_until_let_go
from runs import Runs, place
from safetensors.numpy import load

REPLICAS, STEPS, BATCH = 4, 120, 64
SETTINGS = {"steps": STEPS, "batch": BATCH, "validateEverySteps": STEPS, "dropout": 0}
AS_TYPED = ("--gpu", "a100", "--replicas", str(REPLICAS))
LOGGED = "--set=env.JOBCTL_LOG_SAMPLES=1"


@pytest.fixture(scope="module")
def runs(make_namespace: Callable[..., Any], tiny_dataset: Path) -> Runs:
    """`jobctl submit train --gpu a100 --replicas 4`, sizes as the chart gives them."""
    namespace = make_namespace("groups")
    place(tiny_dataset, namespace.volume)
    return Runs(namespace, AS_TYPED, SETTINGS, requests={})


def product_of(namespace: Any, node: str) -> str:
    """The GPU that a node is labelled with."""
    return namespace.get("node", node)["metadata"]["labels"]["nvidia.com/gpu.product"]


@pytest.fixture(scope="module")
def undisturbed(runs: Runs) -> str:
    runs.submit("calm", "--allow-cpu", LOGGED)
    assert runs.wait("calm") == 0
    return "calm"


def test_four_replicas_on_the_a100_node_are_one_run(runs, undisturbed):
    attempts = runs.attempts(undisturbed)
    assert [record["index"] for record, _ in attempts] == [0, 1, 2, 3]
    assert {product_of(runs.namespace, record["node"]) for record, _ in attempts} == {"NVIDIA-A100-SXM4-80GB"}
    for pod in runs.pods(undisturbed).values():
        assert pod["spec"]["containers"][0]["resources"]["requests"]["nvidia.com/gpu"] == "1"
    for _, log in attempts:
        assert log.count("no GPU for profile a100: computing on the CPU, as allowCpu says") == 1
        assert "of 4 has met the others" in log

    directory = runs.directory(undisturbed)
    assert {path.name for path in (directory / "results").iterdir()} == {"0.000001"}
    assert {path.name[-7:] for path in (directory / "checkpoints").iterdir()} == {".000001"}
    assert {path.name for path in (directory / "metrics").iterdir()} == {"0.000001.jsonl"}


@pytest.mark.held
def test_a_worker_that_is_evicted_comes_back_alone_and_the_weights_are_those_of_the_undisturbed_run(runs, undisturbed):
    held = runs.submit_held("evicted", 10, "--allow-cpu", indexes=range(REPLICAS))
    assert {facts["step"] for facts in held} == {10}
    evicted_at = runs.evict(held[2]["pod"])
    wait_until_let_go(runs.namespace.volume, "evicted", held[2], index=2)
    runs.release("evicted")
    assert runs.wait("evicted") == 0

    attempts = runs.attempts("evicted")
    assert [record["index"] for record, _ in attempts] == [0, 1, 2, 2, 3]
    end = attempts[2][0]["end"]
    assert end["exitCode"] == 75
    saved = int(re.search(r"saved after step (\d+)", end["reason"])[1])
    assert saved == 11  # a group that is told does one more step together
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


def test_samples_are_used_once_and_weights_are_a_single_replicas_up_to_the_order_of_sums(runs, undisturbed):
    """docs/groups.md derives the tolerance; samples and their augmentation are the same to the bit."""
    from workers.train import learning_rate  # which imports torch

    single = replace(runs, flags=("--gpu", "cpu"))
    single.submit("single", LOGGED)
    assert single.wait("single") == 0
    ((_, log),) = single.attempts("single")
    whole, ranks = samples_of(log), [samples_of(log) for _, log in runs.attempts(undisturbed)]
    assert list(whole) == list(range(STEPS))
    for step, samples in whole.items():
        shares = [rank[step] for rank in ranks]
        assert set.union(*shares) == samples and sum(map(len, shares)) == len(samples)

    one, four = (load(runs.weights(name)["model.safetensors"]) for name in ("single", undisturbed))
    rates = sum(learning_rate(step, STEPS, peak=1e-3, warmup_fraction=0.05) for step in range(STEPS))
    largest = max(float(np.abs(tensor).max()) for name, tensor in one.items() if name.startswith("layers"))
    allowed = allowed_difference(BATCH, rates, STEPS, largest)
    found = np.concatenate([np.abs(four[name] - one[name]).ravel() for name in one])
    most = np.quantile(found, 0.999)
    print(f"largest difference {found.max():.1e}, of 999 in 1000 {most:.1e}, allowed {allowed:.1e}")
    assert most <= allowed
    assert found.max() <= 2 * rates


def test_a_group_over_both_nodes_ends_with_the_bits_of_one_on_a_single_node(runs, undisturbed):
    half_a_node = {"cpu": "800m"}  # of 2 CPUs: two pods fit
    apart = replace(runs, flags=("--gpu", "ampere", "--replicas", str(REPLICAS)), requests=half_a_node)
    apart.submit("apart", "--allow-cpu")
    assert apart.wait("apart") == 0
    products = Counter(product_of(runs.namespace, record["node"]) for record, _ in apart.attempts("apart"))
    assert products == {"NVIDIA-A100-SXM4-80GB": 2, "NVIDIA-A10G": 2}
    assert apart.weights("apart") == runs.weights(undisturbed)
