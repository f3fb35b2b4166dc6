import json
import os
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.errors import BadConfigError
from workers.runtime import (
    Runtime,
    StopFlag,
    data_directory,
    lease_directory,
    owned_range,
    processor_ticks,
    recorded_directory,
    time_to_save,
)

POD = {
    "JOBCTL_VOLUME": "/shared",
    "JOBCTL_TMP": "/tmp",
    "JOBCTL_POD_NAME": "x-r1-2",
    "JOBCTL_POD_UID": "uid",
    "JOBCTL_JOB_UID": "job",
    "JOBCTL_POD_IP": "127.0.0.9",
    "JOBCTL_NODE": "n",
    "JOBCTL_NAMESPACE": "ns",
    "JOBCTL_METRICS_PORT": "9401",
    "JOBCTL_GRACE_SECONDS": "30",
    "JOBCTL_STORE": "x-r1-0.x:29400",
    "JOB_COMPLETION_INDEX": "2",
    "JOBCTL_REPLICAS": "4",
    "JOBCTL_WORLD": "8",
    "JOBCTL_LOCAL_RANK": "1",
    "JOBCTL_FENCE": "7",
}


def test_the_environment_of_a_pod_is_read_whole():
    runtime = Runtime.from_env(POD)
    assert (runtime.pod, runtime.pod_uid, runtime.job_uid, runtime.ip) == ("x-r1-2", "uid", "job", "127.0.0.9")
    assert (runtime.index, runtime.replicas, runtime.world, runtime.local_rank, runtime.rank) == (2, 4, 8, 1, 5)
    assert (runtime.fence, runtime.metrics_port, runtime.grace_seconds) == (7, 9401, 30.0)
    assert (runtime.store, str(runtime.volume), runtime.summary_file) == ("x-r1-0.x:29400", "/shared", None)


def test_a_lone_process_has_rank_0_whatever_its_index():
    assert Runtime.from_env(POD | {"JOBCTL_WORLD": "1"}).rank == 0


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"JOBCTL_VOLUME": ""}, "JOBCTL_VOLUME is not set"),
        ({"JOBCTL_FENCE": "x"}, "JOBCTL_FENCE is 'x'"),
        (
            {"JOBCTL_GRACE_SECONDS": "0"},
            "JOBCTL_GRACE_SECONDS is '0' in the environment, but must be a number of seconds",
        ),
    ],
)
def test_a_wrong_environment_is_told_by_name(changes, why):
    with pytest.raises(BadConfigError, match=why):
        Runtime.from_env(POD | changes)


def test_progress_is_written_at_most_five_times_a_second_and_the_last_words_at_once(tmp_path):
    runtime = Runtime(volume=tmp_path, tmp=tmp_path, summary_file=tmp_path / "summary.json")
    inodes = set()
    began = time.monotonic()
    while time.monotonic() - began < 0.5:
        runtime.progress(step=1)
        inodes.add(runtime.summary_file.stat().st_ino)
    assert len(inodes) <= 4
    runtime.flush_progress(loss=0.5, reason="done")
    written = json.loads(runtime.summary_file.read_text())
    assert written["summary"] == {"step": 1, "loss": 0.5, "reason": "done"}


def test_what_is_told_for_the_first_time_is_written_at_once(tmp_path):
    runtime = Runtime(volume=tmp_path, tmp=tmp_path, summary_file=tmp_path / "summary.json")
    runtime.progress()
    runtime.progress(step=1)
    assert json.loads(runtime.summary_file.read_text())["summary"] == {"step": 1}


def test_without_a_supervisor_progress_is_told_to_nobody(tmp_path):
    runtime = Runtime(volume=tmp_path, tmp=tmp_path)
    runtime.flush_progress(step=1)
    assert list(tmp_path.iterdir()) == []


def test_a_long_call_names_its_thread_until_it_ends(tmp_path):
    runtime = Runtime(volume=tmp_path, tmp=tmp_path, summary_file=tmp_path / "summary.json")

    def told():
        return json.loads(runtime.summary_file.read_text())["busy"]

    with runtime.busy("reading"):
        assert told() == {"doing": "reading", "thread": threading.get_native_id()}
        with runtime.busy("checking"):
            assert told()["doing"] == "checking"
        assert told()["doing"] == "reading"
    assert told() is None


def test_the_processor_time_of_a_thread_stands_still_while_it_is_blocked():
    blocked, let_go = [], threading.Event()
    thread = threading.Thread(target=lambda: (blocked.append(threading.get_native_id()), let_go.wait()))
    thread.start()
    while not blocked:
        time.sleep(0.01)
    first = [processor_ticks(os.getpid(), one) for one in (blocked[0], threading.get_native_id())]
    while processor_ticks(os.getpid(), threading.get_native_id()) < first[1] + 5:
        sum(range(10_000))
    assert processor_ticks(os.getpid(), blocked[0]) <= first[0] + 1
    let_go.set()
    assert processor_ticks(os.getpid(), 2**30) is None, "no such thread"


def test_the_time_to_save_ends_five_seconds_before_the_grace_period(tmp_path):
    assert (time_to_save(60), time_to_save(6)) == (55, 3)
    runtime = Runtime(volume=tmp_path, tmp=tmp_path, grace_seconds=60)
    assert runtime.seconds_to_save() == 55
    runtime.stop.set()
    assert 54 < runtime.seconds_to_save() <= 55
    runtime.stop.since -= 100
    assert runtime.seconds_to_save() == 0


def test_a_stop_flag_keeps_the_time_of_the_first_signal():
    flag = StopFlag()
    assert not flag.wait(0)
    flag.set()
    since = flag.since
    flag.set()
    assert (flag.is_set(), flag.since) == (True, since)


@given(st.integers(0, 300), st.integers(1, 20))
def test_the_ranges_of_all_indexes_are_disjoint_and_complete(count, replicas):
    ranges = [owned_range(count, replicas, index) for index in range(replicas)]
    assert [number for owned in ranges for number in owned] == list(range(count))


def test_leases_lie_beside_what_they_guard(tmp_path):
    assert lease_directory(tmp_path, "train", "x", "datasets/d", 0) == tmp_path / "runs/x/lease/0"
    assert lease_directory(tmp_path, "collect", "x", None, 3) == tmp_path / "datasets/x/lease/3"
    assert data_directory(tmp_path, "datasets/d", "x") == tmp_path / "datasets/d"


@pytest.mark.parametrize("data", [None, "datasets/d", "datasets/team/d", "datasets/new/d"])
def test_collect_writes_below_datasets(tmp_path, data):
    (tmp_path / "datasets" / "d").mkdir(parents=True)
    assert recorded_directory(tmp_path, data, "x") == tmp_path / (data or "datasets/x")


@pytest.mark.parametrize(
    "data",
    [
        *("runs/innocent", "datasets", "datasets/", "datasets/..", "datasets/../runs/innocent", "..", "/", "elsewhere"),
        *(
            "datasets/link",
            "datasets/link/inside",
            "datasets/out",
            "datasets/held/episodes",
            "datasets/team",
            "datasets/firm",
            "a\0b",
        ),
    ],
)
def test_collect_writes_nowhere_else_neither_through_links_nor_into_other_datasets(tmp_path, data):
    volume = tmp_path / "volume"
    for directory in ("runs/innocent", "datasets/held/episodes", "datasets/team/inner", "datasets/firm/team/episodes"):
        (volume / directory).mkdir(parents=True)
    for dataset in ("datasets/held", "datasets/team/inner", "datasets/firm/team/episodes"):
        (volume / dataset / "dataset.json").touch()
    (volume / "datasets/link").symlink_to(volume / "runs")
    (volume / "datasets/out").symlink_to(tmp_path)
    with pytest.raises(BadConfigError, match=r"datasets/NAME$"):
        recorded_directory(volume, data, "x")
    with pytest.raises(BadConfigError):
        lease_directory(volume, "collect", "x", str(tmp_path), 0)


def test_the_supervisors_imports_are_light():
    heavy = "{'torch', 'numpy', 'pydantic', 'prometheus_client', 'safetensors', 'zarr', 'mujoco'}"
    code = f"import workers.supervise, sys; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"
