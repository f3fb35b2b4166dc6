"""Supervisors of a group as real processes with real signals; only the loops are small scripts (fake_loop.py)."""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import patience, wait_for

from workers import meeting, results, storage

FAKE = Path(__file__).with_name("fake_loop.py")
DRIVER = """
import signal, sys
from pathlib import Path
from workers.supervise import main
sys.exit(main("train", Path(sys.argv[1]), [sys.executable, sys.argv[2]]))
"""
STARTED = re.compile(r"loop pid (\d+) fence (\d+)")


class Replicas:
    """The pods of one group, run `x`; `script` is what each loop does (see fake_loop.py)."""

    def __init__(self, tmp_path: Path, *script: str, replicas: int = 2, **changes: Any) -> None:
        self.tmp_path, self.volume = tmp_path, tmp_path / "volume"
        self.run_dir = self.volume / "runs" / "x"
        self.volume.mkdir()
        self.config = tmp_path / "config.json"
        env = {key: changes.pop(key) for key in list(changes) if key.isupper()}
        values = {"version": "0.1.0", "run": "x", "kind": "train", "task": "predictor", "specHash": "h"}
        self.config.write_text(json.dumps(values | {"replicas": replicas, "settings": {"script": script}} | changes))
        network = f"127.{random.randint(1, 250)}.{random.randint(0, 255)}"
        self.env = {
            "JOBCTL_VOLUME": str(self.volume),
            "JOBCTL_TMP": str(tmp_path / "tmp"),
            "JOBCTL_JOB_UID": "job",
            "JOBCTL_LEASE_SECONDS": "1.5",
            "JOBCTL_STORE": f"{network}.1:29400",
            **env,
        }
        self.network = network
        self.pods: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, *indexes: int, **env: str) -> "Replicas":
        for index in indexes:
            environment = {
                "JOB_COMPLETION_INDEX": str(index),
                "JOBCTL_POD_UID": f"{index}-{time.monotonic_ns()}",
                "JOBCTL_POD_IP": f"{self.network}.{index + 1}",
                "JOBCTL_TERMINATION_LOG": str(self.tmp_path / f"termination-{index}"),
            }
            with self.log_path(index).open("ab") as log:
                self.pods[index] = subprocess.Popen(
                    [sys.executable, "-c", DRIVER, str(self.config), str(FAKE)],
                    env=os.environ | self.env | environment | env,
                    stdout=log,
                    stderr=log,
                )
        return self

    def wait(self, index: int, seconds: float = 30) -> int:
        return self.pods[index].wait(patience(seconds))

    def send(self, index: int, number: signal.Signals) -> None:
        self.pods[index].send_signal(number)

    def log_path(self, index: int) -> Path:
        return self.tmp_path / f"log-{index}"

    def log(self, index: int) -> str:
        return self.log_path(index).read_text()

    def generations(self, index: int) -> list[int]:
        """The numbers under which this index has started a loop."""
        return [int(fence) for _, fence in STARTED.findall(self.log(index))]

    def loops(self, index: int) -> list[int]:
        """The process ids of the loops that this index has started."""
        return [int(pid) for pid, _ in STARTED.findall(self.log(index))]

    def until(self, condition: Callable[[], Any], seconds: float = 30) -> None:
        wait_for("it", condition, seconds)

    def until_generation(self, number: int, *indexes: int) -> None:
        self.until(lambda: all(self.generations(index)[-1:] == [number] for index in indexes))

    def create(self, name: str) -> None:
        """What loops wait for that were told `await NAME`."""
        (self.volume / name).touch()

    def message(self, index: int) -> dict[str, Any]:
        return json.loads((self.tmp_path / f"termination-{index}").read_text())

    def living(self, *indexes: int) -> bool:
        return all(self.pods[index].poll() is None for index in indexes)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[Callable[..., Replicas]]:
    groups: list[Replicas] = []

    def make(*script: str, **options: Any) -> Replicas:
        groups.append(Replicas(tmp_path, *script, **options))
        return groups[-1]

    yield make
    for made in groups:
        for index, pod in made.pods.items():
            if pod.poll() is None:
                pod.kill()
                pod.wait()
            print(f"--- index {index}\n{made.log(index)}")


def test_replicas_live_in_one_generation_and_end_with_index_0s_result(group):
    three = group("rank 0 await go", "rank 0 finish 0", "exit 0", replicas=3).start(2, 1, 0)
    three.until_generation(1, 0, 1, 2)
    assert three.living(0, 1, 2)
    three.create("go")
    assert [three.wait(index) for index in range(3)] == [0, 0, 0]
    assert [path.name for path in (three.run_dir / "lease").iterdir()] == ["0"]
    assert [path.name for path in (three.run_dir / "results").iterdir()] == ["0.000001"]


def test_who_comes_after_the_end_reads_the_end_marker_and_waits_for_nobody(group):
    pair = group("rank 0 finish 0", "exit 0").start(0)
    assert pair.wait(0) == 0
    pair.start(1, JOBCTL_JOB_UID="another")
    assert pair.wait(1) == 0
    assert pair.generations(1) == []


def test_only_the_pod_that_was_killed_comes_back(group):
    three = group("fence 1 hang", "await go", "rank 0 finish 0", replicas=3).start(0, 1, 2)
    three.until_generation(1, 0, 1, 2)
    three.send(1, signal.SIGKILL)
    three.wait(1)
    three.until_generation(2, 0, 2)
    assert "replica 1 is lost: its connection closed: the loops start again" in three.log(0)
    assert "replica 1 is lost: its connection closed: the loops start again" in three.log(2)
    assert "waiting for replica 1" in three.log(0)
    three.start(1)
    three.until_generation(2, 1)
    assert three.generations(0) == three.generations(2) == [1, 2]
    three.create("go")
    assert [three.wait(index) for index in range(3)] == [0, 0, 0]


def test_when_index_0_is_killed_the_others_wait_in_their_pods_for_its_successor(group):
    pair = group("fence 1 hang", "await go", "rank 0 finish 0").start(0, 1)
    pair.until_generation(1, 0, 1)
    pair.send(0, signal.SIGKILL)
    pair.wait(0)
    pair.until(lambda: "replica 0 is lost: the loops start again" in pair.log(1))
    pair.start(0)
    pair.until_generation(2, 0, 1)
    pair.create("go")
    assert [pair.wait(0), pair.wait(1)] == [0, 0]


def test_a_replica_that_has_done_all_steps_is_there_if_index_0_dies_before_it_published(group):
    pair = group("rank 1 exit 0", "fence 1 hang", "await met", "finish 0").start(0, 1)
    pair.until_generation(1, 0, 1)
    pair.until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pair.loops(1)))
    assert pair.living(1)
    pair.send(0, signal.SIGKILL)
    pair.wait(0)
    pair.start(0)
    pair.until_generation(2, 0, 1)  # index 0 has not published yet: it waits until they have met
    pair.create("met")
    assert [pair.wait(0), pair.wait(1)] == [0, 0]


def test_a_loop_that_crashes_takes_its_own_pod_alone(group):
    pair = group("rank 1 fence 1 exit 3", "await go", "rank 0 finish 0").start(0, 1)
    assert pair.wait(1) == 3
    pair.until_generation(2, 0)
    pair.start(1)
    pair.until_generation(2, 1)
    pair.create("go")
    assert [pair.wait(0), pair.wait(1)] == [0, 0]


def test_loops_that_lost_each_other_start_again_and_no_pod_ends(group):
    pair = group("rank 1 fence 1 exit 76", "await go", "rank 0 finish 0").start(0, 1)
    pair.until_generation(2, 0, 1)
    assert pair.generations(0) == pair.generations(1) == [1, 2]
    pair.create("go")
    assert [pair.wait(0), pair.wait(1)] == [0, 0]


def test_the_replica_that_is_told_leaves_with_75_and_the_others_stay(group):
    pair = group("rank 1 fence 1 wait", "fence 1 await told", "fence 1 exit 75", "await go", "rank 0 finish 0")
    pair.start(0, 1).until_generation(1, 0, 1)
    pair.send(1, signal.SIGTERM)
    assert pair.wait(1) == 75
    pair.create("told")
    pair.until_generation(2, 0)
    pair.start(1)
    pair.until_generation(2, 1)
    pair.create("go")
    assert [pair.wait(0), pair.wait(1)] == [0, 0]


def test_told_where_a_peer_is_gone_already_it_leaves_with_75_at_once(group):
    pair = group("fence 1 hang", "wait").start(0, 1)
    pair.until_generation(1, 0, 1)
    pair.send(0, signal.SIGKILL)
    pair.until(lambda: "replica 0 is lost" in pair.log(1))
    pair.send(1, signal.SIGTERM)
    assert pair.wait(1) == 75
    assert pair.message(1)["reason"] == "told to stop while waiting for the other replicas"


def test_a_peer_that_is_silent_is_lost_and_welcome_when_it_wakes_up(group):
    pair = group("await go", "rank 0 finish 0", JOBCTL_PEER_SECONDS="2").start(0, 1)
    pair.until_generation(1, 0, 1)
    pair.send(1, signal.SIGSTOP)
    pair.until_generation(2, 0)
    assert "replica 1 is lost: it was silent for 2 s" in pair.log(0)
    pair.send(1, signal.SIGCONT)
    pair.until_generation(2, 1)
    pair.create("go")
    assert [pair.wait(0), pair.wait(1)] == [0, 0]


@pytest.mark.parametrize(("index", "reason"), [(0, "replica 1 did not come"), (1, "replica 0 did not come")])
def test_peers_that_do_not_come_within_the_rendezvous_time_give_76(group, index, reason):
    pair = group("hang", JOBCTL_RENDEZVOUS_SECONDS="1").start(index)
    assert pair.wait(index) == 76
    assert pair.message(index)["reason"] == f"{reason} for 1 s"


def test_a_stranger_is_not_let_in(group):
    pair = group("await go", "rank 0 finish 0", JOBCTL_RENDEZVOUS_SECONDS="20").start(0)
    pair.start(1, JOBCTL_JOB_UID="another", JOBCTL_RENDEZVOUS_SECONDS="3")
    pair.until_generation(1, 0)
    assert pair.wait(1) == 76
    assert pair.generations(1) == []
    assert pair.living(0)


def test_a_loop_that_hangs_is_the_one_that_leaves(group):
    pair = group("rank 1 fence 1 hang", "await go", "rank 0 finish 0", JOBCTL_WATCHDOG_SECONDS="2").start(0, 1)
    assert pair.wait(1) == 75
    assert "no progress for 2 s" in pair.message(1)["reason"]
    assert pair.living(0)
    pair.create("go")
    assert pair.wait(0) == 0


def test_the_processes_of_a_pod_live_and_end_together_with_the_code_of_the_one_that_failed(group):
    pod = group(
        "rank 0 await crash",
        "rank 0 exit 76",
        "rank 1 await crash",
        "rank 1 sleep 0.5",
        "rank 1 say failed",
        "rank 1 exit 3",
        replicas=1,
        gpusPerReplica=2,
        device="cuda",
    )
    pod.start(0).until(lambda: pod.log(0).count("loop pid") == 2)
    pod.create("crash")
    assert pod.wait(0) == 3
    assert pod.log(0).count("failed") == 1
    assert not any(Path(f"/proc/{pid}").exists() for pid in pod.loops(0))


def test_a_process_that_hangs_is_found_beside_one_that_lives(group):
    pod = group(
        "rank 0 await never",
        "rank 1 hang",
        replicas=1,
        gpusPerReplica=2,
        device="cuda",
        JOBCTL_WATCHDOG_SECONDS="2",
    )
    pod.start(0)
    assert pod.wait(0) == 75
    assert pod.message(0)["reason"].startswith("no progress of local rank 1 for 2 s")
    assert "in await_file" in pod.log(0), "the stacks of all"


def test_processes_that_all_wait_for_each_other_start_again(group):
    pair = group("fence 1 stuck", "await go", "rank 0 finish 0", JOBCTL_WATCHDOG_SECONDS="2", JOBCTL_PEER_SECONDS="3")
    pair.start(0, 1).until_generation(2, 0, 1)
    assert "have waited for each other for 2 s" in pair.log(0)
    pair.create("go")
    assert [pair.wait(0), pair.wait(1)] == [0, 0]


def test_who_waits_for_one_that_is_at_work_waits_as_long_as_it_takes(group):
    pair = group("rank 0 stuck", "rank 1 await go", "rank 1 exit 3", JOBCTL_WATCHDOG_SECONDS="1").start(0, 1)
    pair.until_generation(1, 0, 1)
    time.sleep(3)
    assert pair.living(0, 1)
    assert pair.generations(0) == [1]


def test_a_loop_that_aborts_as_a_peer_is_gone_starts_again_in_its_pod(group):
    """As NCCL ends a process. Index 0 hears of the loss first: it gives its loop some seconds to save."""
    pair = group("rank 1 hang", "fence 1 beat 1", "fence 1 await gone", "fence 1 kill SIGABRT", "finish 0").start(0, 1)
    pair.until_generation(1, 0, 1)
    pair.send(1, signal.SIGKILL)
    pair.wait(1)
    pair.create("gone")
    assert pair.wait(0) == 0
    assert pair.generations(0) == [1, 2]


def test_of_several_loops_that_abort_one_is_the_crash_and_the_others_follow_it(group):
    """The one of which index 0 hears first: which that is, nobody can say here."""
    three = group(
        "rank 0 fence 1 await never", "fence 1 await abort", "fence 1 kill SIGABRT", "await go", "rank 0 finish 0",
        replicas=3,
    )  # fmt: skip
    three.start(0, 1, 2).until_generation(1, 0, 1, 2)
    three.create("abort")
    three.until(lambda: not three.living(1, 2))
    crashed = next(index for index in (1, 2) if not three.living(index))
    assert three.wait(crashed) == 134
    assert three.message(crashed)["reason"] == "the loop was killed by SIGABRT"
    three.until_generation(2, 0, 3 - crashed)
    three.start(crashed)
    three.create("go")
    assert [three.wait(index) for index in range(3)] == [0, 0, 0]


def test_the_crash_of_a_process_is_told_before_the_aborts_that_follow_it(group):
    pod = group(
        "rank 0 await crash",
        "rank 0 kill SIGABRT",
        "rank 1 await crash",
        "rank 1 sleep 0.5",
        "rank 1 kill SIGSEGV",
        replicas=1,
        gpusPerReplica=2,
        device="cuda",
    )
    pod.start(0).until(lambda: pod.log(0).count("loop pid") == 2)
    pod.create("crash")
    assert pod.wait(0) == 139


def test_a_group_takes_other_ports_where_some_are_taken(group):
    pair = group("await go", "rank 0 finish 0")
    with contextlib.ExitStack() as taken:
        for port in (29400, 29401, 29403):
            taken.enter_context(socket.create_server((f"{pair.network}.1", port)))
        pair.start(0, 1).until_generation(1, 0, 1)
        pair.create("go")
        assert [pair.wait(0), pair.wait(1)] == [0, 0]


def test_where_all_ports_are_taken_one_sentence_says_how_to_choose_others(group):
    pair = group("hang")
    with contextlib.ExitStack() as taken:
        for port in range(29400, 29400 + meeting.PORTS):
            taken.enter_context(socket.create_server((f"{pair.network}.1", port)))
        assert pair.start(0).wait(0) == 64
        assert "JOBCTL_STORE_PORT" in pair.message(0)["reason"]
        pair.start(0, JOBCTL_STORE_PORT="31000", JOBCTL_JOB_UID="retried").until_generation(2, 0)


@pytest.mark.parametrize("port", ["x", "0", "70000"])
def test_a_port_that_is_none_is_refused_by_name(group, port):
    pair = group("hang", JOBCTL_STORE_PORT=port).start(0)
    assert pair.wait(0) == 64
    assert f"JOBCTL_STORE_PORT is {port!r}" in pair.message(0)["reason"]


def test_strangers_neither_end_a_generation_nor_keep_a_member_away(group):
    pair = group("await go", "rank 0 finish 0").start(0, 1)
    pair.until_generation(1, 0, 1)
    place = meeting.find(pair.run_dir / "lease" / "0")
    known = {"hello": 1, "run": "x", "job": "job", "index": 1}
    forged = [known, known | {"proof": "0" * 64}, {"lost": 1}, {"hello": {}}, [], "x", None]
    lines = [b"[" * 5000, b"\xff\xfe\n", b"", b"x" * 100_000, *(json.dumps(some).encode() for some in forged)]
    with contextlib.ExitStack() as flood:
        for line in lines:
            with socket.create_connection((f"{pair.network}.1", place.hub)) as stranger, contextlib.suppress(OSError):
                stranger.sendall(line + b'\n{"lost": 1, "why": "they say so"}\n')
                assert stranger.recv(100) == b""
        for _ in range(100):
            flood.enter_context(socket.create_connection((f"{pair.network}.1", place.hub)))
        pair.send(1, signal.SIGKILL)
        pair.wait(1)
        pair.until_generation(2, 0)
        pair.start(1).until_generation(2, 1)
        assert pair.generations(0) == [1, 2]
        pair.create("go")
        assert [pair.wait(0), pair.wait(1)] == [0, 0]
    assert "Traceback" not in pair.log(0)


def test_a_terminal_code_ends_the_group_with_index_0s_result(group):
    pair = group("rank 0 exit 65", "hang").start(0, 1)
    assert pair.wait(0) == 65
    assert results.finished(pair.run_dir, 0, "h", "job") == 65
    assert pair.wait(1) == 65


def test_a_group_without_a_place_to_meet_is_refused(group):
    pair = group("hang", JOBCTL_STORE="").start(1)
    assert pair.wait(1) == 64
    assert "JOBCTL_STORE is not set" in pair.message(1)["reason"]


def test_each_generation_has_a_lease_of_its_own(group):
    pair = group("rank 1 fence 1 exit 76", "rank 0 await go", "rank 0 finish 0").start(0, 1)
    pair.until_generation(2, 0, 1)
    pair.create("go")
    assert pair.wait(0) == 0
    leases = pair.run_dir / "lease" / "0"
    assert [storage.read_json(leases / f"{number:06d}")["released"] for number in (1, 2)] == [True, True]


def test_a_fresh_start_keeps_the_log_of_who_came_before_index_0(group):
    pair = group("say hello", "rank 0 await go", "rank 0 finish 0", "exit 0", freshToken="t1")
    (pair.run_dir / "attempts").mkdir(parents=True)
    (pair.run_dir / "attempts" / "old.log").touch()
    pair.start(1)
    time.sleep(1.5)
    pair.start(0).until_generation(1, 0, 1)
    pair.create("go")
    assert [pair.wait(0), pair.wait(1)] == [0, 0]
    logs = sorted((pair.run_dir / "attempts").glob("*.log"))
    assert [path.name[0] for path in logs] == ["0", "1"]
    assert all("hello" in path.read_text() for path in logs)
    assert [path.name for path in pair.run_dir.parent.glob("x.before-*/attempts/*")] == ["old.log"]
