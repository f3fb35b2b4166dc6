"""The supervisor as a real process with real signals; only the loop is a small script of its own (fake_loop.py)."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from held import holder, release, wait_until_held
from waiting import patience, wait_for

from workers import attempts, results, storage
from workers.lease import Lease, numbers

FAKE = Path(__file__).with_name("fake_loop.py")
DRIVER = """
import signal, sys
from pathlib import Path
from workers.supervise import main
sys.exit(main(sys.argv[1], Path(sys.argv[2]), [sys.executable, sys.argv[3]]))
"""


class Pod:
    """One pod of run `x`, its volume shared with the other pods of the test."""

    def __init__(self, tmp_path: Path, *script: str, uid: str = "a", kind: str = "train", **changes: Any) -> None:
        self.volume = tmp_path / "volume"
        self.volume.mkdir(exist_ok=True)
        self.run_dir = self.volume / "runs" / "x"
        self.uid = uid
        self.message_file = tmp_path / f"termination-{uid}"
        self.config = tmp_path / f"config-{uid}.json"
        env = {key: changes.pop(key) for key in list(changes) if key.isupper()}
        values = {"version": "0.1.0", "run": "x", "kind": kind, "task": "predictor", "specHash": "h"}
        self.config.write_text(json.dumps(values | {"settings": {"script": script}} | changes))
        self.env = os.environ | {
            "JOBCTL_VOLUME": str(self.volume),
            "JOBCTL_TMP": str(tmp_path / "tmp"),
            "JOBCTL_POD_NAME": f"pod-{uid}",
            "JOBCTL_POD_UID": uid,
            "JOBCTL_JOB_UID": "job",
            "JOBCTL_LEASE_SECONDS": "2",
            "JOBCTL_GRACE_SECONDS": "20",
            "JOBCTL_TERMINATION_LOG": str(self.message_file),
            **env,
        }
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> "Pod":
        kind = json.loads(self.config.read_text())["kind"]
        command = [sys.executable, "-c", DRIVER, kind, str(self.config), str(FAKE)]
        self.process = subprocess.Popen(
            command, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return self

    def wait(self, seconds: float = 20) -> tuple[int, str]:
        """(exit code, output)"""
        assert self.process is not None
        output, _ = self.process.communicate(timeout=patience(seconds))
        return self.process.returncode, output

    def run(self) -> tuple[int, str]:
        return self.start().wait()

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def log(self) -> str:
        path = self.run_dir / "attempts" / f"0.{self.uid}.log"
        return path.read_text() if path.exists() else ""

    def message(self) -> dict[str, Any]:
        return json.loads(self.message_file.read_text())

    def record(self) -> dict[str, Any]:
        return storage.read_json(self.run_dir / "attempts" / f"0.{self.uid}.json")


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[Callable[..., Pod]]:
    pods: list[Pod] = []

    def make(*script: str, **options: Any) -> Pod:
        pods.append(Pod(tmp_path, *script, **options))
        return pods[-1]

    yield make
    for made in pods:
        if made.process and made.process.poll() is None:
            made.process.kill()
            made.process.communicate()


def until(condition: Callable[[], Any], seconds: float = 15) -> Any:
    return wait_for("it", condition, seconds)


def until_said(pod: Pod, text: str) -> None:
    wait_for(text, lambda: text in pod.log(), picture=pod.log)


def loop_pid(pod: Pod) -> int:
    return int(until(lambda: re.search(r"loop pid (\d+)", pod.log()))[1])


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except FileNotFoundError:
        return False


def test_a_loop_that_publishes_its_result_ends_with_0_and_leaves_its_log_and_record(pod):
    first = pod("say hello", "beat 5", "finish 0")
    assert first.run()[0] == 0
    assert "hello" in first.log()
    assert first.message() == {"step": 5, "code": 0, "reason": "finished with 0"}
    end = first.record()["end"]
    assert (end["exitCode"], end["signalled"], end["reason"]) == (0, False, "finished with 0")
    assert end["memoryHighWaterBytes"] > 2**20
    assert storage.read_json(first.run_dir / "lease" / "0" / "000001")["released"] is True


def test_an_end_marker_of_code_0_holds_for_every_later_attempt_with_that_hash(pod):
    pod("finish 0").run()
    assert pod("exit 1", uid="b", JOBCTL_JOB_UID="other").run()[0] == 0
    assert pod("exit 1", uid="c", specHash="another").run()[0] == 1


@pytest.mark.parametrize("link", ["runs/x", "runs/x/results", "runs/x/attempts", "runs/x/lease", "runs/x/checkpoints"])
def test_behind_a_link_no_run_is_written_or_set_aside(pod, tmp_path, link):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "thesis.txt").touch()
    worker = pod("finish 0", freshToken="t")
    place = worker.volume / link
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(elsewhere)
    code, output = worker.run()
    assert (code, f"{link} is a link" in output) == (64, True)
    assert [path.name for path in elsewhere.iterdir()] == ["thesis.txt"]


def test_another_code_holds_for_pods_of_the_same_job_only(pod):
    assert pod("finish 66").run()[0] == 66
    assert pod("finish 0", uid="b").run()[0] == 66
    assert pod("finish 0", uid="c", JOBCTL_JOB_UID="retried").run()[0] == 0


def test_a_loop_that_ends_with_0_but_without_a_result_has_crashed(pod):
    code, output = pod("exit 0").run()
    assert code == 1
    assert "without publishing its result" in output


@pytest.mark.parametrize("kind", ["train", "collect", "eval"])
def test_sigterm_reaches_the_loop_which_saves_and_leaves_with_75(pod, kind):
    told = pod("wait", kind=kind).start()
    loop_pid(told)
    told.send(signal.SIGTERM)
    code, output = told.wait()
    assert code == 75
    assert told.message() == {"step": 8, "code": 75, "reason": "interrupted at step 8, which is saved"}
    assert told.record()["end"]["signalled"] is True
    assert storage.verify(told.run_dir / "checkpoints" / "step-00000008.000001")
    assert "told to stop" in output


def test_a_signal_never_gives_0_unless_the_end_marker_says_done(pod):
    for script, uid, code in (("exit 0", "a", 75), ("finish 0", "b", 0)):
        told = pod("say ready", f"await {uid}", script, uid=uid).start()
        until_said(told, "ready")
        told.send(signal.SIGTERM)
        until_said(told, "told to stop")
        (told.volume / uid).touch()
        assert told.wait()[0] == code


def test_a_loop_stands_still_at_the_step_and_goes_on_when_it_is_let_go(pod):
    held = pod("steps 20", "publish 20", "finish 0", JOBCTL_HOLD_AT="10").start()
    (facts,) = wait_until_held(held.volume, "x")
    assert (facts["step"], facts["pod"], facts["fence"]) == (10, "pod-a", 1)
    release(held.volume, "x", until=15)
    (later,) = wait_until_held(held.volume, "x", step=11)
    assert later == {**facts, "step": 15}
    release(held.volume, "x")
    assert held.wait()[0] == 0
    assert holder(held.volume, "x", 0) is None


def test_sigterm_ends_the_hold_the_step_is_done_and_the_next_attempt_is_held_again(pod):
    told = pod("steps 20", "finish 0", JOBCTL_HOLD_AT="10").start()
    wait_until_held(told.volume, "x")
    told.send(signal.SIGTERM)
    assert told.wait()[0] == 75
    assert told.message()["reason"] == "interrupted at step 10, which is saved"
    again = pod("steps 20", "finish 0", uid="b", JOBCTL_HOLD_AT="10").start()
    assert [facts["pod"] for facts in wait_until_held(told.volume, "x", fence=2)] == ["pod-b"]
    release(told.volume, "x")
    assert again.wait()[0] == 0
    assert pod("steps 20", "finish 0", uid="c", JOBCTL_HOLD_AT="10", JOBCTL_JOB_UID="another").run()[0] == 0


def test_a_second_sigterm_ends_all_without_waiting_for_a_save(pod):
    told = pod("stubborn").start()
    pid = loop_pid(told)
    until_said(told, "deaf")
    told.send(signal.SIGTERM)
    until_said(told, "told to stop")
    assert told.process.poll() is None
    told.send(signal.SIGTERM)
    code, _ = told.wait()
    assert (code, told.message()["code"]) == (143, 143)
    assert told.message()["reason"].startswith("told twice to stop")
    until(lambda: not alive(pid))


def test_a_loop_that_does_not_save_in_time_is_killed_before_the_grace_period_ends(pod):
    told = pod("stubborn", JOBCTL_GRACE_SECONDS="6").start()
    until_said(told, "deaf")
    told.send(signal.SIGTERM)
    assert told.wait()[0] == 143
    assert told.message()["reason"] == "saving took longer than the grace period allows"


def test_sigkill_of_the_supervisor_takes_the_loop_with_it(pod):
    killed = pod("hang").start()
    pid = loop_pid(killed)
    assert alive(pid)
    killed.send(signal.SIGKILL)
    until(lambda: not alive(pid))


def test_what_the_loop_started_ends_with_it(pod):
    told = pod("stubborn").start()
    pid = loop_pid(told)
    until_said(told, "deaf")
    children = until(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    os.kill(pid, signal.SIGKILL)
    assert told.wait()[0] == 137
    until(lambda: not any(alive(int(child)) for child in children))


def test_sigterm_while_waiting_for_the_lease_gives_75_at_once(pod):
    holder = pod("wait").start()
    loop_pid(holder)
    waiter = pod("finish 0", uid="b").start()
    waiter_output = []
    until(lambda: waiter_output.append(waiter.process.stdout.readline()) or "waiting for lease 1" in waiter_output[-1])
    waiter.send(signal.SIGTERM)
    assert waiter.wait()[0] == 75
    assert waiter.message()["reason"] == "told to stop while waiting for the lease"
    assert holder.process.poll() is None
    holder.send(signal.SIGTERM)
    assert holder.wait()[0] == 75


def test_a_new_attempt_waits_for_a_living_one_and_takes_over_from_a_dead_one(pod):
    dead = pod("publish 4", "hang").start()
    until(lambda: (dead.run_dir / "checkpoints" / "step-00000004.000001").exists())
    dead.send(signal.SIGKILL)
    code, output = pod("finish 0", uid="b").run()
    assert code == 0
    assert "stood still" in output
    assert "fence 2 attempt 2" in output


def test_a_holder_that_lost_its_lease_ends_its_loop(pod):
    paused = pod("say ready", "hang").start()
    pid = loop_pid(paused)
    Lease.acquire(paused.run_dir / "lease" / "0", pod="thief", uid="t", lease_seconds=0.0).release()
    assert paused.wait()[0] == 75
    assert paused.message()["reason"] == "a newer attempt has taken the lease"
    assert paused.record()["end"]["signalled"] is True
    assert not alive(pid)


def test_a_loop_that_ends_because_its_lease_is_lost_has_not_crashed(pod):
    late = pod("say ready", "await go", "exit 1").start()
    pid = loop_pid(late)
    late.send(signal.SIGSTOP)
    Lease.acquire(late.run_dir / "lease" / "0", pod="thief", uid="t", lease_seconds=0.0).release()
    (late.volume / "go").touch()
    until(lambda: not alive(pid))
    late.send(signal.SIGCONT)
    assert late.wait()[0] == 75
    assert late.message()["reason"] == "a newer attempt has taken the lease"


def test_no_progress_leaves_the_stacks_in_the_log_and_75(pod):
    code, output = pod("helper", "beat 1", "hang", JOBCTL_WATCHDOG_SECONDS="1").run()
    assert code == 75
    assert "no progress for 1 s" in output
    assert re.search(r"fake_loop.py.*line \d+ in <lambda>", output)
    assert re.search(r"line \d+ in stand_still", output), "those of the loop's own processes, too"


def test_a_loop_that_beats_is_left_alone(pod):
    beats = [word for step in range(15) for word in (f"beat {step}", "sleep 0.2")]
    assert pod(*beats, "finish 0", JOBCTL_WATCHDOG_SECONDS="2").run()[0] == 0


@pytest.mark.parametrize("script", [("burn 3",), ("beat 1", "busy burn 3"), ("beat 1", "behind burn 3")])
def test_long_work_that_can_say_nothing_is_left_alone_as_long_as_it_uses_the_processor(pod, script):
    assert pod(*script, "finish 0", JOBCTL_WATCHDOG_SECONDS="1").run()[0] == 0


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (("read pipe",), "no progress for 1 s while starting"),
        (("beat 1", "busy read pipe"), "no progress for 1 s while reading the checkpoint"),
        (("beat 1", "behind read pipe"), "no progress for 1 s while saving"),
        (("beat 1", "read pipe"), "no progress for 1 s"),
        (("beat 1", "burn 600"), "no progress for 1 s"),
    ],
    ids=["blocked at the start", "blocked in a long call", "writer blocked", "blocked", "spinning"],
)
def test_who_is_blocked_or_turns_in_circles_is_ended_with_its_stacks(pod, script, reason):
    code, output = pod(*script, JOBCTL_WATCHDOG_SECONDS="1").run()
    assert code == 75
    assert f"{reason}: stacks are in the log" in output
    assert re.search(r"line \d+ in (read_for_ever|read_bytes|open|burn)", output)


@pytest.mark.parametrize(
    ("script", "code", "reason"),
    [
        ("kill SIGKILL", 137, "the loop was killed by SIGKILL: probably out of memory"),
        ("kill SIGSEGV", 139, "the loop was killed by SIGSEGV"),
        ("exit 3", 3, "the loop ended with code 3"),
        ("exit 76", 76, "the loop ended with code 76"),
    ],
)
def test_the_death_of_a_loop_becomes_its_exit_code(pod, script, code, reason):
    died = pod(script)
    assert died.run()[0] == code
    assert died.message() == {"code": code, "reason": reason}


@pytest.mark.parametrize("code", [64, 65, 66, 70])
def test_a_terminal_code_leaves_a_result_even_if_the_loop_left_none(pod, code):
    died = pod(f"exit {code}")
    assert died.run()[0] == code
    result = results.read_result(died.run_dir, 0)
    assert (result["exitCode"], result["jobUid"], result["specHash"]) == (code, "job", "h")
    assert results.finished(died.run_dir, 0, "h", "job") == code


def test_three_attempts_in_a_row_without_progress_end_with_70(pod):
    assert pod("exit 1", uid="a").run()[0] == 1
    assert pod("publish 5", "exit 1", uid="b").run()[0] == 1  # progress: the row begins anew
    assert pod("exit 1", uid="c").run()[0] == 1
    told = pod("wait", uid="d", JOBCTL_GRACE_SECONDS="20").start()  # told from outside: neither counts nor ends the row
    loop_pid(told)  # which comes after the record
    assert attempts.records(told.run_dir, 0)[-1]["podUid"] == "d"
    told.send(signal.SIGKILL)
    told.wait()
    assert pod("exit 1", uid="e").run()[0] == 1
    last = pod("exit 2", uid="f")
    assert last.run()[0] == 70
    assert "3 attempts in a row made no progress; the last one ended with code 2" in last.message()["reason"]
    assert last.record()["end"]["exitCode"] == 2
    assert results.finished(last.run_dir, 0, "h", "job") == 70
    assert pod("finish 0", uid="g", JOBCTL_JOB_UID="retried").run()[0] == 0


def test_the_termination_message_is_at_most_4_kib(pod):
    died = pod("summary 9000", "exit 1")
    died.run()
    message = died.message()
    assert died.message_file.stat().st_size <= 4096
    assert (message["code"], message["step"]) == (1, 3)
    assert message["reason"].startswith("rrr")


def test_a_fresh_token_moves_what_was_published_aside_once(pod):
    pod("publish 4", "finish 0").run()
    code, output = pod("say again", "publish 1", "finish 0", uid="b", freshToken="t1").run()
    assert (code, "again" in output) == (0, True)
    runs = pod().run_dir.parent
    assert [p.name for p in (runs / "x.before-000002" / "checkpoints").iterdir()] == ["step-00000004.000001"]
    assert [p.name for p in (runs / "x" / "checkpoints").iterdir()] == ["step-00000001.000002"]
    assert numbers(runs / "x" / "lease" / "0") == [1, 2]
    code, output = pod("say again", "exit 1", uid="c", freshToken="t1").run()
    assert (code, "again" in output) == (0, False)
    assert sorted(p.name for p in runs.iterdir()) == ["x", "x.before-000002"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "is not what the chart renders"),
        ("{}", "config.run is missing"),
        (
            '{"run": "x", "kind": "eval", "task": "t", "specHash": "h"}',
            "the command says train, but config.kind is eval",
        ),
    ],
)
def test_a_bad_config_file_gives_64_and_one_sentence(pod, text, why):
    bad = pod().start.__self__
    command = [sys.executable, "-m", "workers", "train", "--config", str(bad.config)]
    bad.config.write_text(text)
    done = subprocess.run(command, env=bad.env, capture_output=True, text=True, timeout=20)
    assert done.returncode == 64
    assert why in bad.message()["reason"]
    assert "Traceback" not in done.stdout + done.stderr


def test_a_volume_that_is_missing_gives_64_and_one_sentence(pod):
    lost = pod("finish 0", JOBCTL_VOLUME="/proc/nowhere")
    code, output = lost.run()
    assert code == 64
    assert "the volume cannot be used" in lost.message()["reason"]
    assert "Traceback" not in output


def test_a_signal_during_start_up_is_not_lost(pod):
    early = pod("wait")
    command = [sys.executable, "-m", "workers", "train", "--config", str(early.config)]
    process = subprocess.Popen(command, env=early.env, stdout=subprocess.DEVNULL)
    until(lambda: "SigBlk:\t0000000000004002" in Path(f"/proc/{process.pid}/status").read_text())
    process.send_signal(signal.SIGTERM)
    assert process.wait(patience(10)) in (75, 143)
