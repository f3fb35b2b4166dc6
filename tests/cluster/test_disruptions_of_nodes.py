"""A run survives its node: drained, or lost and then said to be so. Each has the second worker node for itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from disruptions import INTERRUPTED, Account, Watch, account, begin, report
from nodes import OUT_OF_SERVICE, drained, paused, welcoming
from runs import Runs, place

pytestmark = [pytest.mark.disruptions, pytest.mark.held, pytest.mark.timeout(600)]

SETTINGS = {"steps": 300, "batch": 64, "validateEverySteps": 100, "checkpointEverySteps": 50}
HERE = "jobctl-disruptions"  # the label of nodes that these runs may go to


@pytest.fixture(scope="module")
def runs(make_namespace: Callable[..., Any], tiny_dataset: Path) -> Runs:
    namespace = make_namespace("nodes")
    place(tiny_dataset, namespace.volume)
    return Runs(namespace, (f"--set=scheduling.nodeSelector.{HERE}=here",), SETTINGS)


@pytest.fixture(scope="module")
def nodes(runs: Runs) -> list[str]:
    """The two worker nodes; the one that the faults happen to is the last."""
    return runs.namespace.cluster.nodes()


@pytest.fixture
def begin_on_last(runs: Runs, nodes: list[str]) -> Iterator[Callable[[str], Watch]]:
    """Begins a run on the last node; its next pod may go to the other, too."""
    with welcoming(runs.namespace.cluster, HERE, nodes[-1]) as welcome:

        def begin_there(name: str) -> Watch:
            watch = begin(runs, name)
            welcome(nodes[0])
            return watch

        yield begin_there


@pytest.fixture(scope="module")
def undisturbed(runs: Runs, nodes: list[str]) -> dict[str, bytes]:
    with welcoming(runs.namespace.cluster, HERE, nodes[-1]):
        runs.submit("calm")
        assert runs.wait("calm") == 0
    return runs.weights("calm")


def nodes_of(runs: Runs, name: str) -> list[str]:
    return [record["node"] for record, _ in runs.attempts(name)]


def test_a_drain_is_an_eviction_that_is_not_counted(runs, nodes, undisturbed, begin_on_last):
    watch = begin_on_last("drained")
    with drained(runs.namespace.cluster, nodes[-1], pods="app.kubernetes.io/instance=drained"):
        report("`kubectl drain` of its node", watch.recovery())
        assert runs.wait("drained") == 0
    assert nodes_of(runs, "drained") == [nodes[-1], nodes[0]]
    assert account(runs, "drained") == Account(codes=[INTERRUPTED, 0], ignored=1)
    assert runs.weights("drained") == undisturbed


@pytest.mark.parametrize(
    "command", [("taint", "node", "NODE", OUT_OF_SERVICE), ("delete", "node", "NODE")], ids=lambda words: words[0]
)
def test_a_run_whose_node_is_lost_goes_on_elsewhere_once_somebody_says_so(
    runs, nodes, undisturbed, begin_on_last, command
):
    name, lost = f"lost-{command[0]}", nodes[-1]
    watch = begin_on_last(name)
    with paused(runs.namespace, lost):
        words = [word.replace("NODE", lost) for word in command]
        runs.namespace.wait_for("status names the node", lambda: lost in runs.done("status", name), 120)
        told = runs.done("status", name)
        assert f"kubectl {' '.join(words)}" in told, told
        assert runs.pods(name)[0]["metadata"]["uid"] == watch.pod["metadata"]["uid"]
        said_at = time.time()
        runs.namespace.cluster.kubectl(*words)
        report(f"node lost, then `kubectl {command[0]} node`", watch.recovery(since=said_at))
        assert runs.wait(name) == 0
        assert nodes_of(runs, name) == [lost, nodes[0]]
        assert account(runs, name) == Account(codes=[None, 0], ignored=1)
    assert runs.weights(name) == undisturbed  # also when the lost writer has woken up
