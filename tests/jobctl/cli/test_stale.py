"""What is newer is told by attempts, leases and serial numbers, never by dates."""

import json
import os
import signal
import time

import pytest
from held import hold_at

TRAIN = ("train", "--data", "datasets/x", "--name", "x")
HELD = (*TRAIN, "--set", "env.FAKE_STEPS=600", hold_at(3))


@pytest.fixture
def shown(jobctl):
    """What `status` says of x."""
    return lambda: json.loads(jobctl("status", "x", "-o", "json").out)["job"]


@pytest.fixture
def running(jobctl, backend, home, shown, eventually):
    """x, which trains and has said how far it is: the directory of its revision."""
    jobctl("submit", *HELD)
    eventually(lambda: (shown()["progress"] or {}).get("etaSeconds"))
    (revision,) = (home / "local/x").iterdir()
    return revision


def edit(path, **changes):
    """Write over a file in place, as its writer does with its pulse."""
    document = json.loads(path.read_text()) | changes
    path.write_text(json.dumps(document).ljust(len(path.read_text())))


def test_a_status_whose_supervisor_has_fallen_silent_is_stale_until_it_is_heard_again(
    running, jobctl, backend, shown, eventually
):
    supervisor = backend.supervisor_pid("x")
    os.kill(supervisor, signal.SIGSTOP)
    try:
        edit(running / "pulse.json", seconds=time.monotonic() - 100)
        job = shown()
        assert (job["state"], job["progress"]["etaSeconds"]) == ("unknown", None)
        assert str(supervisor) in job["reason"] and "stale" in job["reason"]
        assert " left" not in jobctl("list").out
        assert jobctl("wait", "x", "--timeout", "0.1").status == 124  # it may come back: it has not ended
    finally:
        os.kill(supervisor, signal.SIGCONT)
    eventually(lambda: shown()["state"] == "running")


def test_a_status_older_than_what_its_supervisor_knows_is_stale_until_it_is_written_again(
    running, jobctl, shown, eventually
):
    status = json.loads((running / "status.json").read_text())
    (running / "status.json").write_text(json.dumps(status | {"serial": status["serial"] - 1}))
    job = shown()
    assert (job["state"], job["progress"]["etaSeconds"]) == ("unknown", None)
    assert jobctl("suspend", "x").status == 0
    eventually(lambda: shown()["state"] == "suspended")


@pytest.mark.parametrize("seconds", [-600, 600])
def test_progress_does_not_follow_the_clocks(seconds, jobctl, shown, eventually):
    jobctl("submit", *HELD, "--set", f"env.FAKE_CLOCK_SECONDS={seconds}")
    eventually(lambda: (shown()["progress"] or {}).get("etaSeconds"))
    progress = shown()["progress"]
    assert (progress["steps"], progress["step"] > 0, progress["stepsPerSecond"] > 0) == (600, True, True)


def test_progress_of_an_attempt_that_has_ended_gives_no_rate_and_no_time_left(jobctl, home, shown, eventually):
    jobctl("submit", *HELD)
    eventually(lambda: (shown()["progress"] or {}).get("step"))
    first = shown()["progress"]["step"]
    jobctl("suspend", "x")
    eventually(lambda: not shown()["replicaStatuses"] or shown()["replicaStatuses"][0]["phase"] != "Running")
    progress = shown()["progress"]
    assert progress["step"] >= first and progress["etaSeconds"] is None


def test_the_end_is_that_of_the_last_attempt_though_it_is_dated_before_the_first(jobctl, home, shown):
    jobctl("submit", *TRAIN, "--set", "env.FAKE_EXIT_ONCE=75", "--set", "env.FAKE_EXIT=66", "--wait")
    (path,) = home.glob("local/x/*/status.json")
    status = json.loads(path.read_text())
    first, last = status["pods"]
    assert first["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 75
    last["metadata"]["creationTimestamp"] = "2020-01-01T00:00:00Z"
    status["pods"] = [last, first]
    path.write_text(json.dumps(status))
    job = shown()
    assert (job["state"], job["replicaStatuses"][0]["exitCode"]) == ("failed", 66)
    assert "the first attempt fails" not in job["reason"]
