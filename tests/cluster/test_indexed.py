"""Collect and eval as Indexed Jobs: whoever of four indexes is killed or evicted, the outcome is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from disruptions import meet
from held import hold_at, wait_until_let_go
from runs import Runs, paced, place

from workers.results import read_result

Dict = dict[str, Any]
INDEXES, EPISODES = 4, 8  # index k owns the episodes 2k and 2k + 1
COLLECT = (f"--set=episodes={EPISODES}", "--set=maxSteps=60", "--set=envs=1")


@pytest.fixture(scope="module")
def runs(make_namespace: Callable[..., Any], tiny_dataset: Path) -> Runs:
    """A namespace with a training, which eval needs, and two collects; all run side by side."""
    runs = Runs(make_namespace("indexed"), flags=(), settings={"steps": 80, "batch": 64, "validateEverySteps": 80})
    place(tiny_dataset, runs.namespace.volume)
    killed = meet(runs, "kill", "episodes/000003", ["rename"])  # index 1, as it publishes its second
    submit(runs, "collect", "struck", *COLLECT, *killed, hold_at(1))
    submit(runs, "collect", "calm", *COLLECT)
    runs.submit("trained")
    return runs


@pytest.fixture(scope="module")
def struck(runs: Runs) -> str:
    """The collect of which one index is killed as it publishes an episode, and another is evicted in one."""
    held = runs.held("struck", range(INDEXES))
    runs.evict(held[2]["pod"])
    wait_until_let_go(runs.namespace.volume, "struck", held[2], index=2)
    runs.release("struck")
    return "struck"


@pytest.fixture(scope="module")
def torn(runs: Runs, struck: str) -> str:
    """The eval of which one index is killed as it hands in its share; `judged` is the undisturbed one."""
    runs.done("wait", "trained")
    options = ("--data", "datasets/tiny", "--from", "trained", "--set=bootstrap=100")
    submit(runs, "eval", "torn", *options, *meet(runs, "kill", "predictions/1", ["rename"]))
    submit(runs, "eval", "judged", *options)
    return "torn"


def submit(runs: Runs, kind: str, name: str, *options: str) -> None:
    sizes = [f"--set=resources.requests.{key}={value}" for key, value in runs.requests.items()]
    given = ["--name", name, "--replicas", str(INDEXES), "--image", runs.namespace.image]
    runs.done("submit", kind, *given, *sizes, *paced(runs.namespace.volume), *options)


def codes(runs: Runs, name: str) -> list[list[int]]:
    """The exit codes of each index's attempts, in time."""
    found: list[list[int]] = [[] for _ in range(INDEXES)]
    for record, _ in runs.attempts(name):
        found[record["index"]].append(record["end"]["exitCode"])
    return found


def dataset(runs: Runs, name: str) -> dict[str, bytes]:
    directory = runs.namespace.volume / "datasets" / name
    return {file: (directory / file).read_bytes() for file in ("ledger.json", "manifest.json")}


def outcome(runs: Runs, name: str) -> Dict:
    """What the merged result says, but for when and where it was made."""
    result = read_result(runs.directory(name), "run")
    assert result is not None
    return {key: result[key] for key in ("exitCode", "reason", "figures", "tables")}


@pytest.mark.held
@pytest.mark.usefixtures("torn")  # so that the evals run meanwhile
def test_a_dataset_is_the_same_when_one_index_is_killed_in_an_episode_and_another_is_evicted(runs, struck):
    for name in (struck, "calm"):
        runs.done("wait", name)
    assert codes(runs, struck) == [[0], [137, 0], [75, 0], [0]]
    assert codes(runs, "calm") == [[0]] * INDEXES
    assert dataset(runs, struck) == dataset(runs, "calm")
    assert outcome(runs, struck) == outcome(runs, "calm")
    told = json.loads(runs.done("status", struck, "-o", "json"))["job"]
    assert (told["state"], told["result"]["figures"]["episodes"]) == ("succeeded", EPISODES)
    assert [replica["attempts"] for replica in told["replicaStatuses"]] == [1, 2, 2, 1]


def test_a_judgement_is_the_same_when_one_index_is_killed_before_it_hands_in_its_share(runs, torn):
    for name in (torn, "judged"):
        runs.done("wait", name)
    assert codes(runs, torn) == [[0], [137, 0], [0], [0]]
    assert codes(runs, "judged") == [[0]] * INDEXES
    assert outcome(runs, torn) == outcome(runs, "judged")
    shown = json.loads(runs.done("results", torn, "-o", "json"))["result"]
    assert {key: shown[key] for key in ("figures", "tables")} == {
        key: outcome(runs, "judged")[key] for key in ("figures", "tables")
    }
