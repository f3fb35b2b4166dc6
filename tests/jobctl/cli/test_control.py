"""cancel, suspend, resume, retry, delete. Pods run fake_worker.py, everything else is real."""

import json
import os
import signal

import pytest
from held import hold_at, wait_until_held

TRAIN = ("train", "--name", "x", "--data", "datasets/x")
HELD = (*TRAIN, hold_at(2))  # which runs until it is told to end


@pytest.fixture
def state(jobctl):
    return lambda: json.loads(jobctl("status", "x", "-o", "json").out)["job"]["state"]


@pytest.fixture
def running(jobctl, state, eventually, home):
    """A job in the middle of its steps."""
    jobctl("submit", *HELD)
    wait_until_held(home / "volumes/shared", "x")
    eventually(lambda: state() == "running")


def test_suspend_stops_the_pods_and_resume_goes_on(running, jobctl, state, eventually, backend):
    assert jobctl("suspend", "x").status == 0
    assert state() == "suspended"
    assert jobctl("suspend", "x").out == "x is suspended already.\n"
    eventually(lambda: not backend.record("x").job["status"].get("active"))
    assert jobctl("resume", "x").status == 0
    eventually(lambda: state() == "running")
    assert jobctl("resume", "x").out == "x is not suspended but running: nothing to do.\n"


def test_cancel_marks_the_job_and_resume_takes_it_back(running, jobctl, state, eventually):
    assert jobctl("cancel", "x").status == 0
    assert state() == "cancelled"
    assert jobctl("cancel", "x").out == "x is cancelled already.\n"
    assert jobctl("wait", "x").status == 1
    jobctl("resume", "x")
    eventually(lambda: state() == "running")


@pytest.mark.parametrize(("verb", "wanted"), [("cancel", "cancelled"), ("suspend", "suspended")])
def test_what_has_not_happened_is_not_reported(verb, wanted, running, jobctl, backend, monkeypatch):
    monkeypatch.setattr("jobctl.local.backend.ANSWER_SECONDS", 0.1)
    monkeypatch.setattr("jobctl.cli.control.LOOK_SECONDS", 0.1)
    supervisor = backend.supervisor_pid("x")
    os.kill(supervisor, signal.SIGSTOP)
    try:
        said = jobctl(verb, "x")
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert (said.status, said.out, f"x is not {wanted} yet but running" in said.error) == (5, "", True)


def test_what_is_told_is_what_is_so(running, jobctl):
    assert jobctl("cancel", "x").out.startswith("x is cancelled by a user")
    assert jobctl("resume", "x").out.startswith("x goes on")
    assert jobctl("delete", "x").out.startswith("x is deleted")


def test_an_ended_job_can_not_be_cancelled_suspended_or_resumed(jobctl):
    jobctl("submit", *TRAIN, "--set", "env.FAKE_EXIT=64", "--wait")
    for verb in ("cancel", "suspend"):
        said = jobctl(verb, "x")
        assert (said.status, said.error) == (5, f"error: x has failed already: there is nothing left to {verb}.")
    said = jobctl("resume", "x")
    assert (said.status, "`jobctl retry x`" in said.error) == (5, True)


def test_retry_starts_a_failed_job_as_a_new_revision_of_the_same_spec(jobctl, backend):
    jobctl("submit", *TRAIN, "--set", "env.FAKE_EXIT_ONCE=64", "--wait")
    before = backend.record("x")
    said = jobctl("retry", "x", "--wait")
    assert (said.status, said.out.splitlines()[0]) == (0, "x is started again as revision 2.")
    after = backend.record("x")
    assert after.values == {**before.values, "planned": {**before.values["planned"], "revision": 2}}
    assert jobctl("retry", "x").out == (
        "x is done already: nothing to do. `jobctl submit --fresh` would run it anew.\n"
    )


def test_retry_leaves_a_running_job_alone(running, jobctl, backend):
    assert jobctl("retry", "x").out == "x is running already: nothing to do.\n"
    assert backend.record("x").revision == 1


def test_retry_cuts_a_back_off_short(jobctl, state, monkeypatch, eventually):
    monkeypatch.setenv("JOBCTL_LOCAL_BACKOFF_SCALE", "60")
    jobctl("submit", *TRAIN, "--set", "env.FAKE_EXIT_ONCE=1")
    eventually(lambda: state() == "recovering")
    assert jobctl("retry", "x", "--wait").status == 0


def test_a_killed_supervisor_reads_as_interrupted_and_retry_resumes(running, jobctl, state, home, backend, eventually):
    status = next(home.glob("local/x/r1-*/status*"))
    os.kill(json.loads(status.read_text())["supervisor"]["pid"], signal.SIGKILL)
    eventually(lambda: state() == "interrupted")
    assert "`jobctl retry x` resumes" in jobctl("status", "x").out
    assert jobctl("wait", "x").status == 1
    assert jobctl("retry", "x").status == 0
    assert (state() in ("pending", "starting", "running"), backend.record("x").revision) == (True, 2)


def test_delete_forgets_the_job_and_leaves_its_data(jobctl, home):
    jobctl("submit", *TRAIN, "--wait")
    said = jobctl("delete", "x")
    assert said.out == f"x is deleted. What it wrote stays in {home}/volumes/shared/runs/x.\n"
    assert (home / "volumes/shared/runs/x/results").is_dir()
    assert jobctl("status", "x").status == 3
    assert jobctl("delete", "x").status == 3
    assert jobctl("results", "x").status == 0
