"""Reading a run on its volume, half-written files included."""

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobctl.errors import JobctlError, NotFoundError
from jobctl.volume import DirectoryReader, Progress, Published, Run


def directory_of(run: Run) -> Path:
    return Path(run.place)


def published(directory: Path) -> Published:
    """A directory under runs/x as the volume's reader tells of it."""
    manifest = directory / "manifest.json"
    files = json.loads(manifest.read_text())["files"] if manifest.exists() else None
    return Published(f"{directory.parent.name}/{directory.name}", files)


def metrics(run: Run, name: str, *lines: dict | str) -> None:
    path = directory_of(run) / "metrics" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")


def publish(directory: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(data)
    entries = {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    (directory / "manifest.json").write_text(json.dumps({"files": entries}))
    return directory


def result(run: Run, name: str, **data: object) -> None:
    publish(directory_of(run) / "results" / name, {"result.json": json.dumps(data).encode()})


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(DirectoryReader(tmp_path), "x")


def test_progress_is_the_newest_line_with_rate_and_time_left(run):
    metrics(
        run,
        "0.000001.jsonl",
        {"time": 100.0, "step": 10, "steps": 100, "loss": 0.9},
        {"time": 105.0, "step": 20, "steps": 100, "loss": 0.5, "note": "text is no figure"},
    )
    assert run.progress() == Progress(
        step=20,
        steps=100,
        steps_per_second=2.0,
        eta_seconds=40.0,
        updated_unix_seconds=105.0,
        figures={"steps": 100, "loss": 0.5},
    )


def test_only_the_newest_attempt_of_an_index_counts(run):
    metrics(run, "0.000009.jsonl", {"time": 1.0, "step": 90, "steps": 100})
    metrics(run, "0.000010.jsonl", {"time": 2.0, "step": 40, "steps": 100})
    progress = run.progress()
    assert progress is not None and progress.step == 40


def test_indexes_add_up(run):
    metrics(run, "0.000001.jsonl", {"time": 1.0, "step": 1, "episodes": 10}, {"time": 2.0, "step": 2, "episodes": 10})
    metrics(run, "1.000001.jsonl", {"time": 1.0, "step": 1, "episodes": 5}, {"time": 3.0, "step": 5, "episodes": 5})
    assert run.progress() == Progress(
        step=7,
        steps=15,
        steps_per_second=3.0,
        eta_seconds=8 / 3,
        updated_unix_seconds=3.0,
        figures={"episodes": 5},
    )


def test_the_total_is_unknown_until_every_index_has_written(run):
    metrics(run, "0.000001.jsonl", {"time": 1.0, "step": 1, "episodes": 3})
    progress = run.progress(indexes=2)
    assert progress is not None and (progress.step, progress.steps) == (1, None)


def test_a_torn_last_line_and_odd_lines_are_left_out(run):
    metrics(run, "0.000001.jsonl", "not json", "[1]", {"time": 1.0, "step": 3}, {"time": 2.0}, '{"time": 3.0, "st')
    progress = run.progress()
    assert progress is not None and (progress.step, progress.steps, progress.eta_seconds) == (3, None, None)


def test_lines_of_an_earlier_submission_can_be_left_out(run):
    metrics(run, "0.000001.jsonl", {"time": 100.0, "step": 3})
    assert run.progress(since_unix_seconds=200.0) is None


def test_no_volume_no_metrics_no_lines_mean_no_progress(run):
    assert run.progress() is None
    metrics(run, "0.000001.jsonl", "")
    metrics(run, ".tmp-0.000002.jsonl", {"time": 1.0, "step": 3})
    assert run.progress() is None


@given(data=st.binary(max_size=200))
def test_any_bytes_in_a_metrics_file_are_survived(tmp_path_factory, data):
    run = Run(DirectoryReader(tmp_path_factory.mktemp("volume")), "x")
    (directory_of(run) / "metrics").mkdir(parents=True)
    (directory_of(run) / "metrics" / "0.000001.jsonl").write_bytes(data)
    run.progress()


def test_the_run_s_own_result_comes_first_and_the_newest_fence_wins(run):
    for name in ("0.000001", "0.000012", "run.000002", "run.000010", "1.000099"):
        result(run, name, exitCode=0, figures={"f1": 0.5, "note": "x"})
    found = run.results()
    assert [result.directory for result in found] == [
        "results/run.000010",
        "results/run.000002",
        "results/0.000012",
        "results/0.000001",
        "results/1.000099",
    ]
    assert found[0].figures == {"f1": 0.5}


def test_unreadable_results_are_passed_over(run):
    result(run, "0.000001", exitCode=0)
    (directory_of(run) / "results" / "0.000002").mkdir()
    publish(directory_of(run) / "results" / "0.000003", {"result.json": b'{"exitCode": '})
    publish(directory_of(run) / "results" / ".tmp-0.000004.1-ab", {"result.json": b"{}"})
    assert [result.directory for result in run.results()] == ["results/0.000001"]


def test_success_holds_for_every_job_with_that_spec_and_failure_for_its_own_job_alone(run):
    result(run, "0.000001", exitCode=0, specHash="a", jobUid="1")
    result(run, "0.000000", exitCode=66, specHash="a", jobUid="1")
    done, missed = run.results()
    assert [done.belongs_to("a", "2"), done.belongs_to("b", "1")] == [True, False]
    assert [missed.belongs_to("a", "1"), missed.belongs_to("a", "2")] == [True, False]


def test_attempts_are_counted_by_index(run):
    directory = directory_of(run) / "attempts"
    directory.mkdir(parents=True)
    for name in ("0.aaa.json", "0.bbb.json", "1.ccc.json", "0.aaa.log", ".tmp", "notes.json"):
        (directory / name).touch()
    assert run.attempts() == {0: 2, 1: 1}


def test_weights_are_the_best_ones_else_the_newest_checkpoint_that_is_complete(run):
    assert run.weights() is None
    model = {"model.safetensors": b"m"}
    publish(directory_of(run) / "checkpoints" / "step-00000100.000001", model)
    newest = publish(directory_of(run) / "checkpoints" / "step-00000200.000001", model)
    (directory_of(run) / "checkpoints" / "step-00000300.000001").mkdir()
    assert run.weights() == published(newest)
    best = publish(directory_of(run) / "best" / "step-00000050.000001", model)
    assert run.weights() == published(best)


def test_fetching_copies_every_file_of_the_manifest(run, tmp_path):
    source = publish(directory_of(run) / "results" / "0.000001", {"result.json": b"{}", "plots/a.png": b"png"})
    (source / "stray.txt").write_text("not published")
    target = tmp_path / "out"
    assert run.fetch(published(source), target) == [target / "plots" / "a.png", target / "result.json"]
    assert sorted(path.name for path in target.rglob("*") if path.is_file()) == ["a.png", "result.json"]


def test_fetching_a_damaged_or_missing_file_is_an_error_that_leaves_nothing_under_its_name(run, tmp_path):
    source = publish(directory_of(run) / "results" / "0.000001", {"result.json": b"{}"})
    (source / "result.json").write_bytes(b"[]")
    with pytest.raises(JobctlError, match="is damaged"):
        run.fetch(published(source), tmp_path / "out")
    (source / "result.json").unlink()
    with pytest.raises(JobctlError, match="is missing"):
        run.fetch(published(source), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    (source / "manifest.json").unlink()
    with pytest.raises(NotFoundError, match="not published completely"):
        run.fetch(published(source), tmp_path / "out")


def test_a_manifest_can_not_write_outside_the_target(run, tmp_path):
    (tmp_path / "secret").write_bytes(b"s")
    source = publish(directory_of(run) / "results" / "0.000001", {"../../../../secret": b"s"})
    assert run.fetch(published(source), tmp_path / "out") == []
