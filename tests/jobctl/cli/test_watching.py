"""wait, logs and what Ctrl-C means. Pods run fake_worker.py, everything else is real."""

import io
import json
import signal
from datetime import UTC, datetime

import pytest
from held import hold_at, release
from waiting import patience

from jobctl.cli.watch import Display
from jobctl.status import JobView

TRAIN = ("train", "--name", "x", "--data", "datasets/x")
HELD = (*TRAIN, hold_at(2))  # which runs until it is told to end


def test_wait_ends_as_the_job_does(jobctl):
    jobctl("submit", *TRAIN)
    assert jobctl("wait", "x").status == 0
    jobctl("submit", "eval", "--name", "y", "--data", "d", "--from", "x", "--set", "env.FAKE_EXIT=66")
    said = jobctl("wait", "y")
    assert (said.status, said.out.splitlines()[-1]) == (1, "next: jobctl logs y · jobctl retry y")


def test_wait_gives_up_after_its_timeout_and_leaves_the_job_alone(jobctl, backend):
    jobctl("submit", *HELD)
    said = jobctl("wait", "x", "--timeout", "0.2")
    assert said.status == 124
    assert said.error.startswith("error: x has not ended after 0.2 s: it is ")
    assert backend.record("x").controller == "alive"


def test_wait_for_programs_prints_one_document_on_stdout_and_the_rest_on_stderr(jobctl):
    jobctl("submit", *TRAIN)
    said = jobctl("wait", "x", "-o", "json")
    assert json.loads(said.out)["job"]["state"] == "succeeded"
    assert "x: succeeded: done" in said.err


@pytest.mark.parametrize(
    "arguments",
    [("submit", *HELD, "--wait"), ("wait", "x"), ("logs", "-f", "x")],
    ids=["submit --wait", "wait", "logs -f"],
)
def test_ctrl_c_detaches_says_how_to_come_back_and_the_job_goes_on(arguments, jobctl, program, backend, eventually):
    if arguments[0] != "submit":
        jobctl("submit", *HELD)
    process = program(*arguments)
    for line in process.stdout:  # it shows the job: it watches
        if "step" in line:
            break
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert "Stopped watching; x goes on: `jobctl " in err
    assert "Traceback" not in err
    assert backend.record("x").controller == "alive"
    assert backend.record("x").pods[0]["status"]["phase"] == "Running"


def test_logs_follow_until_the_job_ends(jobctl, program, home):
    jobctl("submit", *HELD)
    process = program("logs", "-f", "x")
    seen = [process.stdout.readline() for _ in range(3)]
    release(home / "volumes/shared", "x")
    out, _ = process.communicate(timeout=patience(30))
    lines = [line for line in ("".join(seen) + out).splitlines() if not line.startswith("held at")]
    assert lines == ["train x index 0 attempt 1", "step 1", "step 2", "step 3"]


def test_logs_of_several_replicas_name_the_index_and_hold_every_attempt(jobctl):
    jobctl("submit", "collect", "--name", "x", "--replicas", "2", "--set", "env.FAKE_EXIT_ONCE=75", "--wait")
    lines = jobctl("logs", "x").out.splitlines()
    assert {line for line in lines if "attempt" in line} == {
        f"[{index}] collect x index {index} attempt {attempt}" for index in (0, 1) for attempt in (1, 2)
    }
    one = jobctl("logs", "x", "--replica", "1").out.splitlines()
    assert one[0] == "collect x index 1 attempt 1" and len(one) == len(lines) // 2
    entries = [json.loads(line) for line in jobctl("logs", "x", "--replica", "1", "-o", "json").out.splitlines()]
    assert [entry["text"] for entry in entries] == one
    assert {entry["index"] for entry in entries} == {1}


def test_a_replica_that_is_not_there_is_not_found(jobctl):
    jobctl("submit", *TRAIN, "--wait")
    said = jobctl("logs", "x", "--replica", "3")
    assert (said.status, said.error) == (3, "error: x has no replica 3: it has only index 0.")


def job(state: str, reason: str) -> JobView:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return JobView("x", state, reason, 1, "train", "predictor", "cpu", "abc", 1, (), (), now, None, None, "alive")


def test_without_a_terminal_progress_is_a_line_now_and_then_only_when_it_changed():
    stream = io.StringIO()
    display = Display(stream, live=False)
    running = job("running", "running")
    for second, progress in enumerate(["", "step 1", "step 2", "step 2", "step 3", "step 4", "step 5", "step 6"]):
        display.show(running, progress, float(second))
    for second in range(20, 40):
        display.show(running, "step 6", float(second))
    assert stream.getvalue().splitlines() == ["x: running", "x: step 1", "x: step 5", "x: step 6"]


def test_on_a_terminal_progress_overwrites_itself_and_states_stay():
    stream = io.StringIO()
    display = Display(stream, live=True)
    display.show(job("running", "running"), "step 1", 0.0)
    display.show(job("running", "running"), "step 2", 0.1)
    display.show(job("succeeded", "done"), "step 2", 0.2)
    display.close()
    clear = "\r\x1b[K"
    assert stream.getvalue() == f"x: running\n{clear}x: step 1{clear}x: step 2{clear}x: succeeded: done\n"


def test_a_back_off_that_counts_down_is_said_once():
    stream = io.StringIO()
    display = Display(stream, live=False)
    for left in (9, 8, 7):
        display.show(job("recovering", f"index 0 waits {left} s more"), "", float(-left))
    assert stream.getvalue() == "x: recovering: index 0 waits 9 s more\n"
