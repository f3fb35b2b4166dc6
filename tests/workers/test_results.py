import json
import threading

import numpy as np
import pytest

from workers import results, storage
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


def test_the_runs_own_result_is_made_once_by_whoever_comes_first(tmp_path):
    threads = [threading.Thread(target=publish, args=(tmp_path, code), kwargs={"scope": "run"}) for code in (0, 66)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    directory = run_directory(tmp_path, "x") / "results"
    assert [path.name for path in directory.iterdir()] == ["run.000001"]
    assert results.read_result(directory.parent, "run")["index"] is None


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
    old, new = take_lease(run_dir), take_lease(run_dir, adopt=400)
    publish(tmp_path, 0, fence=old)
    assert results.finished(run_dir, 0, "h", "job") is None
    publish(tmp_path, 0, fence=new)
    assert results.finished(run_dir, 0, "h", "job") == 0
