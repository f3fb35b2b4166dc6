import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers import attempts, storage
from workers.errors import StuckError
from workers.lease import Lease
from workers.runtime import Runtime


def record(before: int, code: int | None = 1, signalled: bool = False) -> dict:
    end = None if code is None else {"exitCode": code, "signalled": signalled, "reason": "why"}
    return {"progressBefore": before, "end": end}


ROWS = {
    "three crashes": ([record(4), record(4), record(4)], 4, 3),
    "the last of them published": ([record(4), record(4), record(4)], 5, 0),
    "the one in the middle published": ([record(4), record(4), record(5)], 5, 1),
    "told to stop: neither counts nor ends the row": ([record(4), record(4, 75, True), record(4), record(4)], 4, 3),
    "peers lost: the same": ([record(4), record(4, 76), record(4), record(4)], 4, 3),
    "no end record: the same": ([record(4), record(4, None), record(4), record(4)], 4, 3),
    "told to stop, with progress: ends the row": ([record(3), record(3, 75, True), record(4), record(4)], 4, 2),
    "the watchdog's 75 counts": ([record(4, 75), record(4, 75), record(4, 75)], 4, 3),
    "none": ([], 0, 0),
}


@pytest.mark.parametrize("row", ROWS)
def test_attempts_without_progress_are_counted(row):
    history, mark, expected = ROWS[row]
    assert attempts.without_progress(history, mark) == expected


def test_three_in_a_row_are_stuck_and_the_last_reason_is_told():
    attempts.require_progress([record(4), record(4)], 4)
    with pytest.raises(
        StuckError, match=r"^3 attempts in a row made no progress; the last one ended with code 9: why$"
    ):
        attempts.require_progress([record(4), record(4), record(4, 9)], 4)


def test_records_are_of_one_index_and_job_oldest_first_and_damaged_ones_are_left_out(tmp_path):
    def begin(uid: str, fence: int, index: int = 0, job: str = "job") -> dict:
        runtime = Runtime(volume=tmp_path, tmp=tmp_path, pod_uid=uid, fence=fence, index=index, job_uid=job)
        return attempts.begin(tmp_path, runtime, "h", mark=fence)

    first = begin("zz", 1)
    begin("b", 2)
    begin("c", 3, index=10)
    begin("d", 4, job="other")
    (tmp_path / "attempts" / "0.e.json").write_text("{")
    attempts.end(tmp_path, first, code=75, reason="told", outside=True, seconds=1.5, mark=9)
    found = attempts.records(tmp_path, 0, "job")
    assert [entry["podUid"] for entry in found] == ["zz", "b"]
    end = found[0]["end"]
    assert (end["exitCode"], end["signalled"], end["seconds"], end["progressAfter"]) == (75, True, 1.5, 9)
    assert found[1]["end"] is None
    assert [entry["podUid"] for entry in attempts.records(tmp_path, 0)] == ["zz", "b", "d"]


def mark(tmp_path, kind: str, index: int = 0, episodes: range = range(0)) -> int:
    return attempts.progress_mark(kind, tmp_path, tmp_path / "data", index, episodes)


FORGED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["end", "fence", "exitCode"]), inner),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["fence", "jobUid", "startedAt", "progressBefore", "end"]), FORGED)
def test_a_record_that_somebody_else_wrote_is_counted_or_left_out(tmp_path, field, value):
    sound = attempts.begin(tmp_path, Runtime(volume=tmp_path, tmp=tmp_path), "h", mark=1)
    (tmp_path / "attempts" / "0.forged.json").write_text(json.dumps(sound | {"podUid": "forged", field: value}))
    assert attempts.without_progress(attempts.records(tmp_path, 0), mark=1) <= 1


@pytest.mark.timeout(20)
def test_pipes_links_and_endless_files_are_no_records(tmp_path):
    sound = attempts.begin(tmp_path, Runtime(volume=tmp_path, tmp=tmp_path, pod_uid="a"), "h", mark=1)
    os.mkfifo(tmp_path / "attempts/0.pipe.json")
    (tmp_path / "attempts/0.zero.json").symlink_to("/dev/zero")
    (tmp_path / "attempts/0.link.json").symlink_to("0.a.json")
    (tmp_path / "attempts/0.deep.json").write_text("[" * 4000)
    with (tmp_path / "attempts/0.large.json").open("wb") as file:
        file.truncate(2**40)
    assert attempts.records(tmp_path, 0) == [sound]


def test_progress_of_a_training_is_its_newest_checkpoint_that_counts(tmp_path):
    assert mark(tmp_path, "train") == 0
    of_nobody = ("step-x.000001", "step-٣٣٣٣٣٣٣٣.000001", f"step-{'9' * 200}.000001", "step-00000900.²²²²²²")
    for name in ("step-00000000.000001", "step-00000400.000001", ".tmp-step-00000900.000001.1-00000000", *of_nobody):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert mark(tmp_path, "train") == 401
    for limit in (400, 0):
        held = Lease.acquire(tmp_path / "lease" / "0", pod="p", uid="u", lease_seconds=0.0)
        held.adopt("x", limit)
        held.release()
        assert mark(tmp_path, "train") == {400: 401, 0: 1}[limit]


def test_progress_of_a_collection_is_what_this_index_has_in_the_ledger(tmp_path):
    assert mark(tmp_path, "collect", episodes=range(4)) == 0
    (tmp_path / "data" / "ledger").mkdir(parents=True)
    for name in ("000001.json", "000003.json", "000004.json", ".tmp-000002.json.1-00000000", "².json", "9" * 200):
        (tmp_path / "data" / "ledger" / name).touch()
    assert mark(tmp_path, "collect", episodes=range(4)) == 2
    assert mark(tmp_path, "collect", episodes=range(4, 8)) == 1, "what other indexes record is no progress of this one"


def test_progress_of_an_evaluation_is_its_own_results(tmp_path):
    for name in ("0.000001", "10.000001", "run.000001"):
        (tmp_path / "results" / name).mkdir(parents=True)
    assert [mark(tmp_path, "eval", index) for index in (0, 1, 10)] == [1, 0, 1]


def test_the_log_goes_to_stdout_and_with_all_that_was_said_before_to_the_volume(tmp_path, capfdbinary):
    log = attempts.Log()
    log.line(b"before\n")
    log.open(tmp_path / "attempts" / "0.a.log")
    log.line(b"\xff after\n")
    log.close(5)
    assert (tmp_path / "attempts" / "0.a.log").read_bytes() == b"before\n\xff after\n"


def test_a_volume_that_hangs_stops_no_line_on_stdout_and_the_gap_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "_QUEUED_LINES", 3)
    log = attempts.Log()
    for number in range(10):
        log.line(b"%d\n" % number)
    log.open(tmp_path / "log")
    log.close(5)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0] == "... 7 lines are missing: the volume was too slow or full"
    assert lines[1:] == ["0", "1", "2"]


def test_a_log_has_an_end(tmp_path, monkeypatch):
    monkeypatch.setattr(attempts, "MAX_LOG_BYTES", 8)
    log = attempts.Log()
    log.open(tmp_path / "log")
    for _ in range(5):
        log.line(b"12345\n")
    log.close(5)
    assert (tmp_path / "log").read_text() == "12345\n... the log ends here: it has reached its limit\n"


def test_memory_is_told_with_its_source():
    told = attempts.memory_high_water()
    assert told["memorySource"] in ("cgroup", "largest process")
    assert isinstance(told["memoryHighWaterBytes"], int)
    assert json.loads(storage.to_json(told)) == told
