import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers import lease, storage
from workers.errors import BadConfigError, InterruptedRun
from workers.lease import Lease, Limits, adopted_limits


def take(directory, pod="p", **options):
    return Lease.acquire(directory, pod=pod, uid=pod, lease_seconds=options.pop("lease_seconds", 1.0), **options)


def test_numbers_follow_each_other_and_never_restart(tmp_path):
    for number in (1, 2, 3):
        held = take(tmp_path)
        assert (held.number, held.is_current()) == (number, True)
        held.release()
    assert lease.numbers(tmp_path) == [1, 2, 3]


def test_a_number_is_above_what_a_copied_run_holds_already(tmp_path):
    assert [take(tmp_path, above=9).number, take(tmp_path, lease_seconds=0.0).number] == [10, 11]


def test_a_living_holder_is_waited_for(tmp_path):
    held = take(tmp_path)
    said: list[str] = []

    def has_beaten() -> bool:
        return int(lease.read(tmp_path, 1)["heartbeat"]) >= 3

    with pytest.raises(InterruptedRun, match="told to stop while waiting for the lease"):
        take(tmp_path, should_stop=has_beaten, lease_seconds=2.0, say=said.append)
    assert said == ["waiting for lease 1 of pod p to end"]
    held.release()
    assert take(tmp_path).number == 2


def test_of_many_takers_one_gets_each_number_and_they_never_hold_at_once(tmp_path):
    holding, overlaps, got = [], [], []

    def worker(name: str) -> None:
        held = take(tmp_path, pod=name, lease_seconds=30.0)
        holding.append(held.number)
        overlaps.append(len(holding))
        time.sleep(0.05)
        holding.remove(held.number)
        got.append(held.number)
        held.release()

    threads = [threading.Thread(target=worker, args=(f"p{n}",)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(got) == [1, 2, 3, 4, 5, 6]
    assert max(overlaps) == 1


HOLDER = """
import sys, time
from pathlib import Path
from workers.lease import Lease
held = Lease.acquire(Path(sys.argv[1]), pod="old", uid="old", lease_seconds=1.0)
print(held.number, flush=True)
held.lost.wait()
print("lost", held.is_current(), flush=True)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "1\n"
    yield process
    process.kill()
    process.communicate()


def test_a_dead_holder_is_replaced_after_the_lease_time(tmp_path, holder):
    holder.kill()
    holder.wait()
    said: list[str] = []
    assert take(tmp_path, lease_seconds=1.0, say=said.append).number == 2
    assert said[-1].startswith("lease 1 has stood still for")


def test_a_stopped_holder_that_wakes_up_learns_that_it_has_lost(tmp_path, holder):
    os.kill(holder.pid, signal.SIGSTOP)
    mine = take(tmp_path, lease_seconds=1.0)
    os.kill(holder.pid, signal.SIGCONT)
    assert holder.stdout.readline() == "lost False\n"
    assert mine.is_current()


def test_a_release_of_a_lost_lease_does_not_free_the_newer_one(tmp_path):
    old = take(tmp_path)
    old._released.set()  # its heartbeat dies
    new = take(tmp_path, lease_seconds=0.5)
    old._released.clear()
    old.release()
    assert lease.read(tmp_path, new.number)["released"] is False
    with pytest.raises(InterruptedRun):
        take(tmp_path, should_stop=lambda: True, lease_seconds=5)


def test_a_storage_stall_of_the_waiter_does_not_count_as_the_holders_stillness(tmp_path, monkeypatch):
    take(tmp_path)._released.set()
    looks = []
    real = lease.read

    def slow_read(directory, number):
        looks.append(number)
        if len(looks) in (2, 3):
            time.sleep(1.5)  # the volume hangs
        return real(directory, number)

    monkeypatch.setattr(lease, "read", slow_read)
    assert take(tmp_path, lease_seconds=2.0).number == 2
    assert len(looks) > 6


def test_a_lease_file_that_cannot_be_read_is_taken_for_a_living_one_until_the_time_is_over(tmp_path):
    (tmp_path / "000004").write_bytes(b"")
    said: list[str] = []
    assert take(tmp_path, lease_seconds=0.6, say=said.append).number == 5
    assert said[-1].startswith("lease 4 has stood still for")


def test_without_hard_links_the_number_is_still_taken_by_one_only(tmp_path, monkeypatch):
    def no_links(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    held = take(tmp_path)
    assert held.number == 1
    assert storage.create(lease.path_of(tmp_path, 1), b"{}") is False
    assert lease.read(tmp_path, 1)["pod"] == "p"


NAMES = st.sampled_from(["000001", "000002", "²²²²²²", "9" * 200, "1000000", "x", "000001.tmp", "٣٣٣٣٣٣"])
CONTENTS = st.binary(max_size=40) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["adopted", "step", "released"]), inner),
    max_leaves=5,
).map(storage.to_json)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(files=st.dictionaries(NAMES, CONTENTS))
def test_whatever_lies_among_the_leases_the_next_number_is_taken(tmp_path_factory, monkeypatch, files):
    monkeypatch.setattr(lease, "POLL_SECONDS", 0.001)
    directory = tmp_path_factory.mktemp("run") / "lease" / "0"
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / name).write_bytes(content)
    newest = max(lease.numbers(directory), default=0)
    assert adopted_limits(directory).superseded(5, 9) is False
    held = take(directory, lease_seconds=0.0)
    assert (held.number, lease.read(directory, held.number)["pod"]) == (newest + 1, "p")
    held.release()


def test_a_record_of_this_form_with_a_field_of_another_type_is_none(tmp_path):
    held = take(tmp_path)
    sound = lease.read(tmp_path, 1)
    held.release()
    for change in ({"released": 1}, {"adopted": []}, {"adopted": {"step": "4"}}, {"token": 1}, {"heartbeat": 4}):
        (tmp_path / "000002").write_bytes(storage.to_json(sound | change))
        assert lease.read(tmp_path, 2) is None


def test_a_number_that_nobody_can_have_taken_is_one_sentence(tmp_path):
    (tmp_path / "999999999").write_text("{}")
    with pytest.raises(BadConfigError, match="999999999 is no lease that anybody took: remove it"):
        take(tmp_path, lease_seconds=0.0)


@pytest.mark.timeout(20)
def test_no_pipe_or_link_is_read_or_written_as_a_lease(tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"0" * 64)
    directory = tmp_path / "run" / "lease" / "0"
    held = take(directory)
    held.path.unlink()
    held.path.symlink_to(victim)
    with pytest.raises(OSError, match="symbolic links"):
        held.heartbeat()
    assert lease.read(directory, 1) is None
    held.path.unlink()
    os.mkfifo(held.path)
    with pytest.raises(OSError, match="No such device"):
        held.heartbeat()
    assert lease.read(directory, 1) is None
    assert victim.read_bytes() == b"0" * 64


# --- which leases stay


def history(run_dir, adoptions: list[int | None]) -> Path:
    """Released leases, one after another, of which each adopted its step; None: it adopted nothing."""
    directory = run_dir / "lease" / "0"
    for step in adoptions:
        held = take(directory, lease_seconds=0.0)
        if step is not None:
            held.adopt(f"step-{step:08d}", step)
        held.release()
    return directory


def test_old_leases_are_removed_by_the_next_holder_and_no_number_comes_again(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "KEPT", 4)
    directory = history(tmp_path, [100 * number for number in range(12)])
    assert lease.numbers(directory) == [8, 9, 10, 11, 12], "the newest, and the newest that adopted something"
    assert take(directory, lease_seconds=0.0).number == 13


@settings(max_examples=40, deadline=None)
@given(
    adoptions=st.lists(st.none() | st.integers(0, 30), min_size=6, max_size=14),
    published=st.lists(st.tuples(st.integers(0, 30), st.integers(1, 14)), max_size=6),
)
def test_what_lies_there_is_judged_after_the_removal_as_before(tmp_path_factory, adoptions, published):
    run_dir = tmp_path_factory.mktemp("run")
    directory = run_dir / "lease" / "0"
    directory.mkdir(parents=True)
    for number, step in enumerate(adoptions, start=1):
        adopted = None if step is None else {"name": "x", "step": step}
        record = {"pod": "p", "uid": "u", "token": None, "released": True, "adopted": adopted}
        lease.path_of(directory, number).write_bytes(lease._encode(record))
    for place, (step, fence) in zip(("checkpoints", "best") * 3, published, strict=False):
        (run_dir / place / f"step-{step:08d}.{fence:06d}").mkdir(parents=True, exist_ok=True)
    before = adopted_limits(directory)

    lease.prune(directory, 3)

    after = adopted_limits(directory)
    assert [after.superseded(*found) for found in published] == [before.superseded(*found) for found in published]
    assert after.newest == before.newest
    assert max(lease.numbers(directory)) == len(adoptions)


def test_a_holder_whose_lease_was_removed_learns_that_it_has_lost(tmp_path):
    directory = tmp_path / "run" / "lease" / "0"
    held = take(directory)
    lease.path_of(directory, 2).write_text("{}")
    held.path.unlink()
    assert held.lost.wait(10)


def test_heartbeat_and_adoption_do_not_disturb_each_other(tmp_path):
    held = take(tmp_path)
    for step in range(50):
        held.heartbeat()
        held.adopt(f"step-{step:08d}.000001", step)
    record = lease.read(tmp_path, 1)
    assert int(record["heartbeat"]) >= 50
    assert (record["adopted"], record["pod"]) == ({"name": "step-00000049.000001", "step": 49}, "p")
    assert adopted_limits(tmp_path) == Limits(((1, 49),))
    held.release()


STEPS = st.one_of(st.none(), st.integers(0, 20))


@given(st.lists(st.tuples(st.integers(1, 9), STEPS), max_size=6, unique_by=lambda a: a[0]), st.integers(0, 20))
def test_a_publication_is_superseded_if_any_later_lease_went_on_from_before_it(adoptions, step):
    limits = Limits(tuple(adoptions))
    for fence in range(11):
        later = [limit for number, limit in adoptions if number > fence]
        assert limits.superseded(step, fence) == any(limit is None or limit < step for limit in later)


def test_leases_that_adopted_nothing_yet_supersede_nothing(tmp_path):
    take(tmp_path).release()
    held = take(tmp_path)
    assert adopted_limits(tmp_path) == Limits()
    held.adopt(None, None)
    assert adopted_limits(tmp_path).superseded(0, 1)
    assert not adopted_limits(tmp_path).superseded(5, 2)
    held.release()
