"""Whatever happens to its pod, a run goes on from its last save and ends with the weights of an undisturbed run.

Trainings of one replica on the CPU: equal to the bit. What happens to most of them happens side by side, as each mostly
waits; test_disruptions_of_nodes.py and test_disruptions_of_groups.py have what needs the cluster for itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from disruptions import (
    INTERRUPTED,
    KILLED,
    Account,
    Watch,
    account,
    begin,
    fault,
    is_reported,
    kill_loop,
    newest_job,
    report,
)
from runs import ROOT, Runs, place

STEPS = 600
SETTINGS = {"steps": STEPS, "batch": 256, "validateEverySteps": 300, "checkpointEverySteps": 50}
CHART = str(ROOT / "charts" / "jobctl")


@pytest.fixture(scope="module")
def runs(make_namespace: Callable[..., Any], tiny_dataset: Path) -> Runs:
    namespace = make_namespace("disrupt")
    place(tiny_dataset, namespace.volume)
    return Runs(namespace, (), SETTINGS)


def evict(runs: Runs) -> None:
    watch = begin(runs, "evicted")
    runs.evict(watch.pod["metadata"]["name"])
    report("eviction by the API", watch.recovery())


def kill(runs: Runs) -> None:
    watch = begin(runs, "killed")
    kill_loop(runs, watch.pod["metadata"]["name"])
    report("SIGKILL of the loop in its pod", watch.recovery())


def exhaust_memory(runs: Runs) -> str:
    """What `jobctl status` says before the next attempt."""
    watch = begin(runs, "hungry", *fault(runs, "exhaust-memory", 200))
    runs.namespace.wait_for("its pod has failed", lambda: runs.pods("hungry")[0]["status"]["phase"] == "Failed", 120)
    told = runs.jobctl("status", "hungry").stdout
    report("out of memory, once", watch.recovery(since=watch.ended()))
    return told


def suspend_and_resume(runs: Runs) -> str:
    """What `jobctl status` says meanwhile."""
    watch = begin(runs, "suspended")
    runs.done("suspend", "suspended")
    runs.namespace.wait_for("its pod has ended", lambda: not runs.pods("suspended"), 60)
    told = runs.done("status", "suspended")
    resumed_at = time.time()
    runs.done("resume", "suspended")
    report("`jobctl suspend`, then `resume` (from the resume on)", watch.recovery(since=resumed_at))
    return told


def upgrade_and_roll_back(runs: Runs) -> list[int]:
    """How often the running Job was told to save, after each."""
    watch = begin(runs, "upgraded")
    every = [_saves_every(runs, "upgraded")]
    runs.namespace.helm("upgrade", "upgraded", CHART, "--reuse-values", "--set", "settings.checkpointEverySteps=75")
    report("`helm upgrade` with a changed setting", watch.recovery())
    every.append(_saves_every(runs, "upgraded"))
    watch = Watch(runs, "upgraded")
    runs.namespace.helm("rollback", "upgraded", "1")
    report("`helm rollback`", watch.recovery())
    return [*every, _saves_every(runs, "upgraded")]


def _saves_every(runs: Runs, name: str) -> int:
    config = runs.namespace.get("configmap", newest_job(runs, name)["metadata"]["name"])["data"]["config.json"]
    return json.loads(config)["settings"]["checkpointEverySteps"]


HAPPENINGS = {
    "calm": lambda runs: runs.submit("calm"),
    "evicted": evict,
    "killed": kill,
    "hungry": exhaust_memory,
    "suspended": suspend_and_resume,
    "upgraded": upgrade_and_roll_back,
}


@pytest.fixture(scope="module")
def ended(runs: Runs) -> Iterator[Callable[[str], Any]]:
    """Waits for a run by name to succeed; what its happening had to tell. All happen at once, except for the report."""

    def happen(name: str) -> Any:
        told = HAPPENINGS[name](runs)
        assert runs.wait(name) == 0, runs.jobctl("status", name).stdout
        return told

    with ThreadPoolExecutor(1 if is_reported() else len(HAPPENINGS)) as pool:
        futures: dict[str, Future[Any]] = {name: pool.submit(happen, name) for name in HAPPENINGS}
        yield lambda name: futures[name].result()


@pytest.fixture
def ends_as_calm(runs: Runs, ended: Callable[[str], Any]) -> Callable[[str], bool]:
    def is_equal(name: str) -> bool:
        ended("calm")
        return runs.weights(name) == runs.weights("calm")

    return is_equal


def test_an_eviction_by_the_api_is_not_counted(runs, ended, ends_as_calm):
    ended("evicted")
    assert account(runs, "evicted") == Account(codes=[INTERRUPTED, 0], ignored=1)
    assert ends_as_calm("evicted")


def test_a_killed_loop_is_a_crash_that_is_counted(runs, ended, ends_as_calm):
    ended("killed")
    assert account(runs, "killed") == Account(codes=[KILLED, 0], failed=1, counted=1)
    assert ends_as_calm("killed")


def test_an_attempt_that_was_out_of_memory_is_counted_and_the_next_goes_on(runs, ended, ends_as_calm):
    told = ended("hungry")
    assert "OOMKilled" in told
    assert account(runs, "hungry") == Account(codes=[KILLED, 0], failed=1, counted=1)
    assert ends_as_calm("hungry")


def test_suspend_and_resume_count_nothing(runs, ended, ends_as_calm):
    told = ended("suspended")
    assert "suspended" in told
    assert account(runs, "suspended") == Account(codes=[INTERRUPTED, 0])
    assert ends_as_calm("suspended")


def test_an_upgrade_and_a_rollback_of_a_running_job_resume_it_with_the_settings_of_each(runs, ended, ends_as_calm):
    assert ended("upgraded") == [50, 75, 50]
    assert account(runs, "upgraded") == Account(codes=[INTERRUPTED, INTERRUPTED, 0])
    assert ends_as_calm("upgraded")
