"""Reading a run on its volume, half-written files included."""

import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from jobctl.errors import JobctlError, NotFoundError, UsageError
from jobctl.progress import Progress
from jobctl.volume import DirectoryReader, Published, Run


def directory_of(run: Run) -> Path:
    return Path(run.place)


def published(directory: Path) -> Published:
    """A directory under runs/x as the volume's reader tells of it."""
    manifest = directory / "manifest.json"
    files = json.loads(manifest.read_text())["files"] if manifest.exists() else None
    return Published.of(f"{directory.parent.name}/{directory.name}", files)


def fetch(run: Run, source: Published, target: Path, **how: bool) -> list[Path]:
    return run.fetch(run.copies_of(source, target), **how)


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
    assert fetch(run, published(source), target) == [target / "plots" / "a.png", target / "result.json"]
    assert sorted(path.name for path in target.rglob("*") if path.is_file()) == ["a.png", "result.json"]


def test_fetching_a_damaged_or_missing_file_is_an_error_that_leaves_nothing_under_its_name(run, tmp_path):
    source = publish(directory_of(run) / "results" / "0.000001", {"result.json": b"{}"})
    (source / "result.json").write_bytes(b"[]")
    with pytest.raises(JobctlError, match="is damaged"):
        fetch(run, published(source), tmp_path / "out")
    (source / "result.json").unlink()
    with pytest.raises(JobctlError, match="is missing"):
        fetch(run, published(source), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    (source / "manifest.json").unlink()
    with pytest.raises(NotFoundError, match="not published completely"):
        fetch(run, published(source), tmp_path / "out")


WRITTEN_BY_ANYBODY = (
    "../../../../secret", "/etc/passwd", ".git/config", "Makefile", "plots/../../x.png", "plots/.png", "plots/a b.png",
    "plots/a.png/b.png", "plots/\x1b[31m.png", "result.json\n", "manifest.json", ".result.json", "weights/x", "",
)  # fmt: skip


@settings(max_examples=30)
@given(st.text(max_size=12) | st.sampled_from(WRITTEN_BY_ANYBODY))
@example("report.md")
def test_only_names_that_a_publication_can_have_are_fetched(tmp_path_factory, name):
    tmp_path = tmp_path_factory.mktemp("x")
    source = Published.of("results/0.000001", {name: {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest()}})
    copies = Run(DirectoryReader(tmp_path), "x").copies_of(source, tmp_path / "out")
    assert [copy.relative for copy in copies] == ([name] if name == "report.md" else [])
    assert source.others == (() if name == "report.md" else (name,))


def test_what_is_there_already_is_not_replaced_unasked_and_nothing_is_written_then(run, tmp_path):
    source = publish(directory_of(run) / "results" / "0.000001", {"report.md": b"new", "result.json": b"{}"})
    out = tmp_path / "out"
    out.mkdir()
    (out / "result.json").write_text("mine")
    with pytest.raises(UsageError, match=r"out/result\.json is there already.*--force"):
        fetch(run, published(source), out)
    assert {path.name: path.read_text() for path in out.iterdir()} == {"result.json": "mine"}
    fetch(run, published(source), out, force=True)
    assert (out / "result.json").read_text() == "{}"


def test_no_link_at_the_target_leads_what_is_fetched_elsewhere(run, tmp_path):
    source = publish(directory_of(run) / "results" / "0.000001", {"plots/a.png": b"png", "result.json": b"{}"})
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (elsewhere / "file").write_text("precious")
    (out / "plots").symlink_to(elsewhere)
    with pytest.raises(UsageError, match="out/plots"):
        fetch(run, published(source), out, force=True)
    (out / "plots").unlink()
    (out / "result.json").symlink_to(elsewhere / "file")
    fetch(run, published(source), out, force=True)
    assert {path.name: path.read_text() for path in elsewhere.iterdir()} == {"file": "precious"}
    assert (out / "result.json").read_text() == "{}"


def test_no_more_is_read_than_the_manifest_says(run, tmp_path):
    source = publish(directory_of(run) / "results" / "0.000001", {"result.json": b"12345"})
    with (source / "result.json").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(JobctlError, match="longer than the 5 bytes"):
        fetch(run, published(source), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_what_does_not_fit_is_not_begun(run, tmp_path):
    source = publish(directory_of(run) / "results" / "0.000001", {"report.md": b"x"})
    manifest = json.loads((source / "manifest.json").read_text())
    manifest["files"]["result.json"] = {"bytes": 2**60, "sha256": "0" * 64}
    (source / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="has room for"):
        fetch(run, published(source), tmp_path / "out")
    assert not (tmp_path / "out").exists()


ODD_FILES = {
    "a pipe": lambda path: os.mkfifo(path),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to a file of another run": lambda path: path.symlink_to(path.parents[3] / "other"),
    "a directory": lambda path: path.mkdir(),
    "nothing but brackets": lambda path: path.write_text("[" * 4000),
    "lists in lists": lambda path: path.write_text('{"a":' + "[" * 500 + "]" * 500 + "}"),
    "no object": lambda path: path.write_text("[1]"),
    "nothing": lambda path: path.write_text(""),
    "too much": lambda path: path.write_text('"' + "x" * 17 * 2**20 + '"'),
}


@pytest.mark.parametrize("odd", ODD_FILES)
def test_a_file_that_is_no_document_is_left_out_wherever_it_stands(run, tmp_path, odd):
    make = ODD_FILES[odd]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "other").write_text('{"exitCode": 0, "fence": 1, "files": {}}')
    result(run, "0.000001", exitCode=0)
    publish(directory_of(run) / "best" / "step-00000100.000001", {"model.safetensors": b"m"})
    for directory, name in (("results/0.000002", "result.json"), ("best/step-00000200.000001", "manifest.json"),
                            ("metrics", "0.000001.jsonl"), ("attempts", "0.a.json")):  # fmt: skip
        (directory_of(run) / directory).mkdir(parents=True, exist_ok=True)
        make(directory_of(run) / directory / name)
    assert [found.directory for found in run.results()] == ["results/0.000001"]
    assert run.weights() == published(directory_of(run) / "best" / "step-00000100.000001")
    assert run.progress() is None
    assert run.volume.metrics_of_attempt("x", 0, "a") == []


@pytest.mark.parametrize("odd", [odd for odd in ODD_FILES if odd.startswith("a ")])
def test_a_published_file_that_is_no_file_is_not_fetched(run, tmp_path, odd):
    source = publish(directory_of(run) / "results" / "0.000001", {"report.md": b"x"})
    (source / "report.md").unlink()
    ODD_FILES[odd](source / "report.md")
    with pytest.raises(JobctlError, match=r"report\.md can't be read"):
        fetch(run, published(source), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_link_in_the_place_of_a_directory_leads_nowhere(run, tmp_path):
    elsewhere = publish(tmp_path / "elsewhere" / "0.000001", {"result.json": b'{"exitCode": 0}'})
    directory_of(run).mkdir(parents=True)
    (directory_of(run) / "results").symlink_to(elsewhere.parent)
    assert run.results() == []
    with pytest.raises(JobctlError):
        next(run.volume.read("x", "results/0.000001/result.json"))
    with pytest.raises(JobctlError):
        next(run.volume.read("x", "../../elsewhere/0.000001/result.json"))


def test_weights_of_a_writer_that_woke_up_late_are_passed_over(run):
    current = publish(directory_of(run) / "checkpoints" / "step-00000100.000002", {"model.safetensors": b"m"})
    publish(directory_of(run) / "checkpoints" / "step-00000200.000001", {"model.safetensors": b"late"})
    leases = directory_of(run) / "lease" / "0"
    leases.mkdir(parents=True)
    (leases / "000001").write_text(json.dumps({"adopted": {"name": None, "step": None}}))
    (leases / "000002").write_text(json.dumps({"adopted": {"name": "step-00000100.000001", "step": 100}}))
    assert run.weights() == published(current)
