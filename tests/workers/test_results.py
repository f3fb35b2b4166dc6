import contextlib
import json
import os
import shutil
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers import results, storage
from workers.errors import InterruptedRun
from workers.lease import Lease
from workers.runtime import Runtime, run_directory

JOB = results.Job(run="x", kind="train", task="predictor", spec_hash="h")


def runtime(volume, **changes) -> Runtime:
    return Runtime(volume=volume, tmp=volume, **{"job_uid": "job", "pod_uid": "pod", **changes})


def publish(volume, code=0, job=JOB, scope="index", files=None, figures=None, **changes):
    return results.publish_result(
        runtime(volume, **changes), job, scope=scope, code=code, reason="why", figures=figures, files=files
    )


def take_lease(run_dir, adopt: int | None = None) -> int:
    held = Lease.acquire(run_dir / "lease" / "0", pod="p", uid="u", lease_seconds=0.0)
    if adopt is not None:
        held.adopt(f"step-{adopt:08d}", adopt)
    held.release()
    return held.number


def test_a_result_says_what_ended_how_and_where_it_came_from(tmp_path):
    figures = {"f1": np.float32(0.5), "loss": float("nan"), "episodes": 3}
    plot = lambda directory: (directory / "plots").mkdir() or (directory / "plots" / "pr.png").write_bytes(b"png")  # noqa: E731
    final = publish(tmp_path, figures=figures, files=plot, index=2, fence=7)
    assert final == tmp_path / "runs" / "x" / "results" / "2.000007"
    assert set(storage.verify(final)["files"]) == {"result.json", "plots/pr.png"}
    record = json.loads((final / "result.json").read_text())
    expected = {
        "schema": "jobctl.result/v1",
        "run": "x",
        "kind": "train",
        "task": "predictor",
        "specHash": "h",
        "jobUid": "job",
        "podUid": "pod",
        "index": 2,
        "fence": 7,
        "exitCode": 0,
        "reason": "why",
        "figures": {"f1": 0.5, "loss": None, "episodes": 3},
        "tables": {},
    }
    assert {key: record[key] for key in expected} == expected
    assert record["startedAt"] <= record["finishedAt"]
    assert record["seconds"] >= 0
    assert record["provenance"]["versions"].keys() >= {"workers", "python", "torch"}


def names(volume) -> list[str]:
    return sorted(path.name for path in (run_directory(volume, "x") / "results").iterdir())


def test_the_runs_own_result_is_made_once_by_whoever_comes_first(tmp_path):
    threads = [threading.Thread(target=publish, args=(tmp_path,), kwargs={"scope": "run", "index": i}) for i in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names(tmp_path) == ["run.000001"]
    assert results.read_result(run_directory(tmp_path, "x"), "run")["index"] is None


def test_the_runs_own_result_of_another_job_or_code_has_the_next_number(tmp_path):
    for job_uid, code in (("job", 66), ("other", 66), ("other", 0), ("other", 0)):
        publish(tmp_path, code, scope="run", job_uid=job_uid)
    assert names(tmp_path) == ["run.000001", "run.000002", "run.000003"]
    newest = results.read_result(run_directory(tmp_path, "x"), "run")
    assert (newest["jobUid"], newest["exitCode"], newest["fence"]) == ("other", 0, 3)


@pytest.mark.parametrize(
    ("code", "spec_hash", "job_uid", "repeated"),
    [(0, "h", "job", 0), (0, "h", "other", 0), (0, "g", "job", None), (66, "h", "job", 66), (66, "h", "other", None)],
)
def test_whether_an_end_marker_holds(tmp_path, code, spec_hash, job_uid, repeated):
    publish(tmp_path, code)
    assert results.finished(run_directory(tmp_path, "x"), 0, spec_hash, job_uid) == repeated
    assert results.finished(run_directory(tmp_path, "x"), 1, spec_hash, job_uid) is None


def test_a_damaged_result_counts_as_none_and_the_one_before_holds(tmp_path):
    publish(tmp_path, 66, fence=1)
    newer = publish(tmp_path, 0, fence=2)
    assert results.read_result(tmp_path / "runs" / "x", 0)["exitCode"] == 0
    (newer / "result.json").write_text("{}")
    assert results.read_result(tmp_path / "runs" / "x", 0)["exitCode"] == 66


def test_a_result_of_a_late_writer_is_ignored_once_its_successor_works(tmp_path):
    run_dir = tmp_path / "runs" / "x"
    old = take_lease(run_dir)
    publish(tmp_path, 0, fence=old)
    new = take_lease(run_dir, adopt=400)
    assert results.finished(run_dir, 0, "h", "job") is None
    publish(tmp_path, 0, fence=new)
    assert results.finished(run_dir, 0, "h", "job") == 0


EVAL = results.Job(run="x", kind="eval", task="predictor", spec_hash="h")
COLLECT = results.Job(run="x", kind="collect", task="predictor", spec_hash="h", data="datasets/d")
LEASES = {"train": "runs/x/lease/0", "eval": "runs/x/lease/2", "collect": "datasets/d/lease/2"}


@pytest.mark.parametrize("scope", ["index", "run"])
@pytest.mark.parametrize("job", [JOB, EVAL, COLLECT], ids=lambda job: job.kind)
def test_a_writer_whose_lease_is_lost_publishes_no_end(tmp_path, job, scope):
    leases = tmp_path / LEASES[job.kind]
    for _ in range(2):
        Lease.acquire(leases, pod="p", uid="u", lease_seconds=0.0).release()
    with pytest.raises(InterruptedRun, match="newer attempt"):
        publish(tmp_path, 66, job=job, scope=scope, index=2, fence=1)
    assert names(tmp_path) == []
    publish(tmp_path, 0, job=job, scope=scope, index=2, fence=2)
    assert len(names(tmp_path)) == 1


@pytest.mark.parametrize("first", ["the late one", "its successor"])
def test_an_end_of_the_moment_in_which_the_lease_is_lost_is_not_the_runs_newest(tmp_path, monkeypatch, first):
    """The writer has looked at its lease; before it publishes, its successor takes over, and ends first or second."""
    run_dir = tmp_path / "runs" / "x"
    take_lease(run_dir)
    real = results._require_lease

    def look_and_lose(*arguments):
        real(*arguments)
        monkeypatch.setattr(results, "_require_lease", real)
        take_lease(run_dir)
        if first == "its successor":
            publish(tmp_path, 0, job=EVAL, scope="run", fence=2)

    monkeypatch.setattr(results, "_require_lease", look_and_lose)
    with contextlib.suppress(InterruptedRun):
        publish(tmp_path, 66, job=EVAL, scope="run", fence=1)
    publish(tmp_path, 0, job=EVAL, scope="run", fence=2)

    assert results.read_result(run_dir, "run")["exitCode"] == 0
    assert len(names(tmp_path)) == (2 if first == "the late one" else 1)


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=300)
    | st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists).map(storage.to_json)
)
def test_whatever_lies_there_as_a_result_is_a_result_or_none(tmp_path_factory, content):
    run_dir = tmp_path_factory.mktemp("run")
    storage.publish(run_dir / "results/0.000001", lambda directory: (directory / "result.json").write_bytes(content))
    damaged = []
    assert results.read_result(run_dir, 0, damaged.append) is None
    assert [error.path.name for error in damaged] == ["result.json"]
    assert results.finished(run_dir, 0, "h", "job") is None


@pytest.mark.parametrize("field", ["exitCode", "fence", "specHash", "jobUid", "reason", "kind"])
def test_a_result_with_a_field_of_another_type_counts_as_damaged(tmp_path, field):
    final = publish(tmp_path)
    record = json.loads((final / "result.json").read_bytes()) | {field: ["x"]}
    shutil.rmtree(final)
    storage.publish(final, lambda directory: (directory / "result.json").write_bytes(storage.to_json(record)))
    assert results.read_result(run_directory(tmp_path, "x"), 0) is None


@pytest.mark.timeout(20)
@pytest.mark.parametrize("make", ["device", "pipe", "link", "directory behind a link", "too large"])
def test_no_device_pipe_or_link_is_read_for_a_result(tmp_path, make):
    final = publish(tmp_path)
    path = final / "result.json"
    match make:
        case "pipe":
            path.unlink()
            os.mkfifo(path)
        case "device":
            path.unlink()
            path.symlink_to("/dev/zero")
        case "link":
            path.rename(tmp_path / "elsewhere")
            path.symlink_to(tmp_path / "elsewhere")
        case "directory behind a link":
            (final.parent).rename(tmp_path / "elsewhere")
            final.parent.symlink_to(tmp_path / "elsewhere")
        case "too large":
            with path.open("ab") as file:
                file.truncate(2**33)
    damaged = []
    assert results.read_result(run_directory(tmp_path, "x"), 0, damaged.append) is None
    assert len(damaged) == 1
