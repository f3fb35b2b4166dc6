"""What a pod asks for follows its job's need: CPU up to its share of the node, memory always whole."""

from __future__ import annotations

import math
from functools import reduce
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from jobctl import profiles

CHART = Path(__file__).resolve().parents[2] / "charts" / "jobctl"
NEEDS = yaml.safe_load((CHART / "tasks" / "predictor.yaml").read_text())["needs"]
KINDS = ("collect", "train", "eval")
few_renders = settings(max_examples=12, deadline=None)


@pytest.fixture(scope="module")
def pod(render, pick):
    """The pod's spec of a job of this kind; `values` as a spec has them."""

    def rendered(kind: str, **values) -> dict:
        source = {"from": "r"} if kind == "eval" else {}
        return pick(render({"kind": kind} | source | values), "Job")["spec"]["template"]["spec"]

    return rendered


@pytest.fixture(scope="module")
def asked(pod):
    """(CPU in thousandths, memory in MiB) that a job's pods ask for."""

    def sizes(kind: str, **values) -> tuple[int, int]:
        requests = pod(kind, **values)["containers"][0]["resources"]["requests"]
        assert (requests["cpu"][-1], requests["memory"][-2:]) == ("m", "Mi")
        return int(requests["cpu"][:-1]), int(requests["memory"][:-2])

    return sizes


def added_up(kind: str, figure: str, counts: dict[str, float]) -> float:
    """The task's table, read independently of the chart's template."""
    terms = [(term[figure], term["times"]) for term in NEEDS[kind]["terms"] if figure in term]
    return sum(reduce(lambda value, name: value * counts[name], times, value) for value, times in terms)


def test_the_command_of_four_replicas_fits_a_small_node_as_it_is_typed(asked):
    """`jobctl submit train --gpu a100 --replicas 4 --allow-cpu`: 2 CPUs, of which the node's own pods take a fifth."""
    cpu, memory = asked("train", gpu="a100", replicas=4, allowCpu=True)
    assert 4 * cpu <= 1600
    assert memory <= 4096


@pytest.mark.parametrize("profile", profiles.load_all(), ids=lambda profile: profile.name)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gpus", [1, 4])
def test_no_job_asks_for_more_cpu_than_its_gpus_share_of_the_node_nor_than_it_uses(asked, profile, kind, gpus):
    cpu, _ = asked(kind, gpu=profile.name, gpusPerReplica=gpus, settings={"envs": 32} if kind == "collect" else {})
    processes = gpus if (kind, profile.device) == ("train", "cuda") else 1
    need = added_up(kind, "cpuMillicores", {"envs": 32, "processes": processes, "threads": 1})
    share = profile.cpu_share_millicores * (gpus if profile.device == "cuda" else 1)
    assert cpu == min(share, need)


@pytest.mark.parametrize("kind", KINDS)
def test_with_allow_cpu_a_job_asks_for_the_cpu_profiles_cpu_and_still_for_the_memory_of_its_device(asked, kind):
    fallback = asked(kind, gpu="a100", allowCpu=True)
    assert fallback[0] == asked(kind, gpu="cpu")[0]
    assert fallback[1] == asked(kind, gpu="a100")[1] >= asked(kind, gpu="cpu")[1]


@few_renders
@given(
    envs=st.none() | st.integers(1, 256),
    max_steps=st.none() | st.integers(20, 2000),
    gpu=st.sampled_from(profiles.names()),
)
def test_collect_has_room_for_its_simulators_and_for_every_episode_that_may_be_in_memory(asked, envs, max_steps, gpu):
    given_settings = {name: value for name, value in (("envs", envs), ("maxSteps", max_steps)) if value}
    counts = NEEDS["collect"]["counts"] | given_settings
    memory = asked("collect", gpu=gpu, settings=given_settings)[1]
    assert memory == math.ceil(added_up("collect", "memoryMiB", counts) + NEEDS["collect"]["shmMiB"])
    episode_mib = counts["maxSteps"] * 3 * 224 * 224 * 3 / 2**20
    assert memory > counts["envs"] * (2 * episode_mib + 95)  # MiB of a simulator, measured: scripts/needs.py


@few_renders
@given(
    replicas=st.integers(1, 64),
    gpus=st.integers(1, 8),
    batch=st.fixed_dictionaries({}, optional={"batch": st.integers(1, 1_000_000)})
    | st.fixed_dictionaries({"batchPerReplica": st.integers(1, 10_000)}),
    profile=st.sampled_from(profiles.load_all()),
)
def test_train_has_room_for_its_processes_and_its_share_of_the_batch(asked, replicas, gpus, batch, profile):
    values = {"replicas": replicas, "gpusPerReplica": gpus, "gpu": profile.name, "settings": batch}
    processes = gpus if profile.device == "cuda" else 1
    own = batch["batchPerReplica"] * processes if "batchPerReplica" in batch else None
    samples = own or batch.get("batch", NEEDS["train"]["counts"]["batch"]) / replicas
    counts = {"processes": processes, "threads": 1, "samples": samples, "hostMemoryMiB": profile.host_memory_mib}
    nccl = 1024 if processes > 1 else 0
    wanted = added_up("train", "memoryMiB", counts) + NEEDS["train"]["shmMiB"] + nccl
    assert asked("train", **values)[1] == pytest.approx(wanted, abs=1.01)


@pytest.mark.parametrize("kind", KINDS)
def test_a_setting_that_is_left_open_counts_as_its_default(asked, kind):
    spelled_out = {name: str(value) for name, value in NEEDS[kind]["counts"].items()}  # as --set-string gives them
    for open_ones in ({}, dict.fromkeys(spelled_out.keys() & {"envs", "threads"} if kind != "eval" else ())):
        assert asked(kind, gpu="a10g", settings=open_ones) == asked(kind, gpu="a10g", settings=spelled_out)


def test_memory_is_limited_as_it_is_requested_and_cpu_is_not_limited(pod):
    resources = pod("train", gpu="a100", gpusPerReplica=2)["containers"][0]["resources"]
    assert resources["limits"] == {"memory": resources["requests"]["memory"], "nvidia.com/gpu": "2"}


OWN_SIZES = [
    ({"requests": {"memory": "9Gi"}}, {"memory": "9Gi"}, {"memory": "9Gi"}),
    ({"limits": {"memory": "1Gi"}}, {"memory": "1Gi"}, {"memory": "1Gi"}),
    ({"limits": {"cpu": "300m"}}, {"cpu": "300m"}, {"cpu": "300m"}),  # a request above its limit would be refused
    ({"requests": {"cpu": 2}, "limits": {"cpu": "4"}}, {"cpu": "2"}, {"cpu": "4"}),
    ({"requests": {"ephemeral-storage": "1Gi"}}, {"ephemeral-storage": "1Gi"}, {}),
]


@pytest.mark.parametrize(("resources", "requests", "limits"), OWN_SIZES)
def test_a_users_sizes_win_and_are_text(pod, resources, requests, limits):
    before = pod("eval")["containers"][0]["resources"]
    after = pod("eval", resources=resources)["containers"][0]["resources"]
    assert after == {"requests": before["requests"] | requests, "limits": before["limits"] | limits}


def test_shared_memory_is_larger_where_processes_of_one_pod_talk_through_it(pod):
    def shm(**values):
        return {volume["name"]: volume for volume in pod("train", **values)["volumes"]}["shm"]["emptyDir"]

    assert shm(gpu="a100") == shm(gpu="cpu", gpusPerReplica=2) == {"medium": "Memory", "sizeLimit": "128Mi"}
    assert shm(gpu="a100", gpusPerReplica=2) == {"medium": "Memory", "sizeLimit": "1152Mi"}
    assert shm(resources={"shm": "3Gi"}) == {"medium": "Memory", "sizeLimit": "3Gi"}
