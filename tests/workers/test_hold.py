"""JOBCTL_HOLD_AT: a loop stands still at a step until it is let go or told to stop, whatever its kind."""

import json
import multiprocessing
import threading

import pytest
from held import holder, release, wait_until_held, wait_until_let_go
from waiting import wait_for

from workers.errors import BadConfigError
from workers.runtime import Runtime


def test_a_held_loop_gives_signs_of_life(tmp_path):
    runtime = Runtime(volume=tmp_path, tmp=tmp_path, hold_at=3, summary_file=tmp_path / "summary.json")
    runtime.hold_as("x")
    loop = threading.Thread(target=lambda: runtime.progress(step=3))
    loop.start()
    wait_until_held(tmp_path, "x")

    def beat() -> float:
        return json.loads(runtime.summary_file.read_text())["beat"]

    first = beat()
    wait_for("another sign of life", lambda: beat() != first)
    release(tmp_path, "x")
    loop.join()


def rank(volume, number: int, told) -> None:
    """One rank of two, of which the second is told to stop once `told` is set."""
    runtime = Runtime(volume=volume, tmp=volume, index=number, replicas=2, world=2, hold_at=5, pod=f"pod-{number}")
    runtime.hold_as("x")
    if number == 1:
        threading.Thread(target=lambda: told.wait() and runtime.stop.set()).start()
    for step in range(1, 8):
        runtime.progress(step=step)


def test_a_rank_that_is_told_to_stop_takes_its_peers_out_of_the_hold(tmp_path):
    fork = multiprocessing.get_context("fork")
    told = fork.Event()
    ranks = [fork.Process(target=rank, args=(tmp_path, number, told)) for number in range(2)]
    for process in ranks:
        process.start()
    held = wait_until_held(tmp_path, "x", range(2))
    told.set()
    wait_until_let_go(tmp_path, "x", held[1], index=1)
    for process in ranks:
        process.join()
    assert [process.exitcode for process in ranks] == [0, 0]
    assert [holder(tmp_path, "x", index) for index in range(2)] == [None, None]


def test_without_the_variable_nothing_is_held_and_a_wrong_one_is_told_by_name(tmp_path):
    runtime = Runtime(volume=tmp_path, tmp=tmp_path)
    runtime.hold_as("x")
    runtime.progress(step=10)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadConfigError, match="JOBCTL_HOLD_AT is 'ten'"):
        Runtime.from_env({"JOBCTL_VOLUME": str(tmp_path), "JOBCTL_HOLD_AT": "ten"})
