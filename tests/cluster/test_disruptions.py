"""Whatever happens to its pod, a run goes on from its last save and ends with the weights of an undisturbed run.

Trainings of one replica on the CPU: equal to the bit. What happens to most of them happens side by side, as each mostly
waits; test_disruptions_of_nodes.py and test_disruptions_of_groups.py have what needs the cluster for itself.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
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
    signal_pod,
)
from runs import ROOT, Dict, Runs, place

from workers import checkpoint

pytestmark = [pytest.mark.held, pytest.mark.timeout(600)]

SETTINGS = {"steps": 500, "batch": 64, "validateEverySteps": 100, "checkpointEverySteps": 50}
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
    watch = begin(runs, "hungry", *fault(runs, "exhaust-memory", 200, ["rename"]))
    runs.release("hungry")
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
    report("`helm upgrade` with a changed setting", watch.recovery(until=160))
    every.append(_saves_every(runs, "upgraded"))
    runs.held("upgraded", fence=2, step=160)
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
    """Waits until a run succeeds; what its happening had to tell. All happen at once, for the report one by one."""

    def happen(name: str) -> Any:
        told = HAPPENINGS[name](runs)
        assert runs.wait(name) == 0, runs.jobctl("status", name).stdout
        return told

    futures: dict[str, Future[Any]] = {}
    with ThreadPoolExecutor(len(HAPPENINGS)) as pool:

        def result(name: str) -> Any:
            if name not in futures:
                futures[name] = pool.submit(happen, name)
            return futures[name].result()

        if not is_reported():
            futures |= {name: pool.submit(happen, name) for name in HAPPENINGS}
        yield result


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


# --- what `make test-disruptions` runs, one after the other -----------------------------------------------------------


@pytest.mark.disruptions
def test_a_raw_delete_of_a_running_pod_is_not_counted(runs, ends_as_calm):
    watch = begin(runs, "deleted")
    runs.namespace.kubectl("delete", "pod", watch.pod["metadata"]["name"], "--wait=false")
    report("`kubectl delete pod`", watch.recovery())
    assert runs.wait("deleted") == 0
    assert account(runs, "deleted") == Account(codes=[INTERRUPTED, 0], ignored=1)
    assert ends_as_calm("deleted")


@pytest.mark.disruptions
def test_a_raw_delete_of_a_pod_that_has_not_started_is_counted(runs):
    runs.submit("unstarted", "--set=scheduling.nodeSelector.nowhere=here")
    runs.namespace.wait_for("its pod", lambda: runs.pods("unstarted"), 30)
    runs.namespace.kubectl("delete", "pod", runs.pods("unstarted")[0]["metadata"]["name"], "--wait=false")
    runs.namespace.wait_for("it is counted", lambda: newest_job(runs, "unstarted")["status"].get("failed") == 1, 60)


@pytest.mark.disruptions
def test_a_limit_that_is_always_too_low_fails_the_job_after_its_retries(runs):
    small = replace(runs, requests={"cpu": "50m", "memory": "120Mi"})
    small.submit("starved", "--set=retry.perReplica=1")
    assert small.wait("starved") == 1
    assert account(small, "starved") == Account(codes=[KILLED, KILLED], failed=2, failed_indexes="0", counted=1)
    assert "failed: OOMKilled" in small.done("status", "starved")


@pytest.mark.disruptions
def test_submit_with_replace_resumes_a_running_job_with_the_changed_setting(runs, ends_as_calm):
    watch = begin(runs, "replaced")
    runs.submit("replaced", "--replace", checkpointEverySteps=75)
    report("`jobctl submit --replace` with a changed setting", watch.recovery())
    assert runs.wait("replaced") == 0
    assert _saves_every(runs, "replaced") == 75
    assert account(runs, "replaced") == Account(codes=[INTERRUPTED, 0])
    assert ends_as_calm("replaced")


LATE, RELIED_ON = "step-00000400.000001", "step-00000350.000002"


def stop_and_replace(runs: Runs, name: str, moments: list[str]) -> tuple[Watch, Dict]:
    """A run whose whole pod stands still in a save, and the pod of its successor, whose loop stops before its first."""

    def stopped(loops: int) -> bool:
        return sum("a test stops this loop" in log for _, log in runs.attempts(name)) == loops

    options = [*fault(runs, "freeze", 400, moments, ["write"]), "--set=env.JOBCTL_LEASE_SECONDS=5"]
    watch = begin(runs, name, *options)
    runs.release(name, until=410)  # so that it has not ended by itself when its supervisor wakes up
    runs.namespace.wait_for("its loop stands still", lambda: stopped(1), 60)
    signal_pod(watch.pod, "STOP")
    runs.submit(name, "--replace", "--set=checkpoint.keep=4", *options)
    successor = watch.replacement()
    runs.namespace.wait_for("so does its successor's", lambda: stopped(2), 50)
    return watch, successor


def newest(runs: Runs, name: str) -> str:
    """What an attempt that started now would go on from."""
    restored = checkpoint.newest(runs.directory(name))
    assert restored is not None
    return restored.path.name


def end_both(runs: Runs, name: str, watch: Watch, successor: Dict) -> list[int]:
    """Wake what still sleeps; the exit codes of the writer that is late, and of its successor."""
    signal_pod(watch.pod, "CONT")
    runs.namespace.wait_for("the late writer has ended", lambda: runs.attempts(name)[0][0]["end"], 30)
    assert (LATE in runs.saved(name), newest(runs, name)) == (False, RELIED_ON)
    signal_pod(successor, "CONT")
    assert runs.wait(name) == 0
    return [record["end"]["exitCode"] for record, _ in runs.attempts(name)]


@pytest.mark.disruptions
def test_what_a_writer_publishes_late_is_ignored_and_it_prunes_nothing_of_its_successor(runs, ends_as_calm):
    watch, successor = stop_and_replace(runs, "late", ["write", "remove"])
    signal_pod(watch.pod, "CONT", "workers.loop")  # before its supervisor, which would end it
    runs.namespace.wait_for("it has published", lambda: LATE in runs.saved("late"), 30)
    assert newest(runs, "late") == RELIED_ON
    signal_pod(watch.pod, "CONT", "workers.loop")
    runs.namespace.wait_for("it has pruned", lambda: LATE not in runs.saved("late"), 30)
    assert end_both(runs, "late", watch, successor) == [INTERRUPTED, 0]
    assert ends_as_calm("late")


@pytest.mark.disruptions
def test_a_writer_that_is_stopped_before_its_rename_publishes_nothing_late(runs, ends_as_calm):
    watch, successor = stop_and_replace(runs, "renaming", ["rename"])
    assert end_both(runs, "renaming", watch, successor) == [INTERRUPTED, 0]
    assert ends_as_calm("renaming")
