"""A training group meets again, whichever of its pods are evicted, and ends with an undisturbed group's weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disruptions import INTERRUPTED, TERMINATED, Watch, begin, newest_job, report
from runs import Runs, place

pytestmark = [pytest.mark.disruptions, pytest.mark.held, pytest.mark.timeout(600)]

REPLICAS = range(4)
FLAGS = ("--gpu", "a100", "--allow-cpu", "--replicas", str(len(REPLICAS)))
SETTINGS = {"steps": 80, "batch": 64, "validateEverySteps": 40, "checkpointEverySteps": 10}
EVICTED = {"worker": [2], "rank 0": [0], "all four at once": list(REPLICAS)}


@pytest.fixture(scope="module")
def runs(make_namespace: Callable[..., Any], tiny_dataset: Path) -> Runs:
    namespace = make_namespace("groups")
    place(tiny_dataset, namespace.volume)
    return Runs(namespace, FLAGS, SETTINGS)


@pytest.fixture(scope="module")
def undisturbed(runs: Runs) -> dict[str, bytes]:
    runs.submit("calm")
    assert runs.wait("calm") == 0
    return runs.weights("calm")


@pytest.mark.parametrize("who", EVICTED)
def test_only_evicted_pods_are_replaced_and_nothing_is_counted(runs, undisturbed, who):
    name, indexes = who.split()[0], EVICTED[who]
    first = begin(runs, name, indexes=REPLICAS)
    watches = [Watch(runs, name, index) for index in indexes]
    for watch in watches:
        runs.evict(watch.pod["metadata"]["name"])
    report(f"of a group of four: {who} evicted", watches[0].recovery(since=first.asked))
    assert runs.wait(name) == 0

    codes = [
        [(record["end"] or {}).get("exitCode") for record, _ in runs.attempts(name) if record["index"] == index]
        for index in REPLICAS
    ]
    assert [ended[-1] for ended in codes] == [0] * len(REPLICAS)
    assert [index for index in REPLICAS if len(codes[index]) > 1] == indexes
    assert {code for index in indexes for code in codes[index][:-1]} <= {INTERRUPTED, TERMINATED}
    status = newest_job(runs, name)["status"]
    assert (status.get("failed", 0), status.get("failedIndexes", "")) == (0, "")
    assert runs.weights(name) == undisturbed
