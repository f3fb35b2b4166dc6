import ast
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers import attempts, read, results, storage
from workers.lease import Lease
from workers.runtime import Runtime

JOB = results.Job(run="x", kind="train", task="predictor", spec_hash="h")


def runtime(volume: Path, **changes) -> Runtime:
    return Runtime(volume=volume, tmp=volume, **{"job_uid": "job", "pod_uid": "pod", **changes})


def publish_weights(run_dir: Path, name: str, **files: dict) -> dict:
    def write(directory: Path) -> None:
        (directory / "model.safetensors").write_bytes(b"w")
        for file, content in files.items():
            (directory / f"{file}.json").write_text(json.dumps(content))

    final = storage.publish(run_dir / name, write)
    return storage.verify(final)["files"]


def take_lease(run_dir: Path, adopt: int | None) -> None:
    held = Lease.acquire(run_dir / "lease" / "0", pod="p", uid="u", lease_seconds=0.0)
    held.adopt(f"step-{adopt or 0:08d}", adopt)
    held.release()


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume with the run `x`, as workers leave one: a lease, two metrics files, an attempt, weights and a result."""
    run = tmp_path / "volume" / "runs" / "x"
    (run / "metrics").mkdir(parents=True)
    take_lease(run, adopt=None)
    (run / "metrics" / "0.000001.jsonl").write_text('{"time": 1, "step": 1}\n')
    lines = [json.dumps({"time": step, "step": step, "loss": 0.5}) for step in range(100)]
    (run / "metrics" / "0.000002.jsonl").write_text("\n".join(lines) + '\n{"time": 100, "st')
    volume = tmp_path / "volume"
    attempts.begin(run, runtime(volume, fence=2), "h", mark=0)
    (run / "attempts" / "0.pod.log").write_text("first\nsecond\nthird\n")
    publish_weights(run, "checkpoints/step-00000200.000002", state={"specHash": "h"})
    publish_weights(run, "best/step-00000100.000002")
    results.publish_result(runtime(volume, fence=1), JOB, scope="index", code=66, reason="gate missed")
    results.publish_result(runtime(volume, fence=2), JOB, scope="index", code=0, reason="done", figures={"f1": 0.5})
    return volume


def cli(volume: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.environ["PATH"], "JOBCTL_VOLUME": str(volume), **env}
    return subprocess.run([sys.executable, "-m", "workers", "read", *arguments], env=environment, capture_output=True)


def test_a_run_is_told_in_one_document(volume):
    answer = cli(volume, "x")
    assert (answer.returncode, answer.stderr) == (0, b"")
    found = json.loads(answer.stdout)
    run = volume / "runs" / "x"
    first, second = run / "results/0.000001", run / "results/0.000002"
    assert found == {
        "schema": "jobctl.read/v1",
        "run": "x",
        "metrics": {"0.000002": [{"time": step, "step": step, "loss": 0.5} for step in range(37, 100)]},
        "results": [
            {
                "directory": f"results/{path.name}",
                "data": json.loads((path / "result.json").read_text()),
                "files": storage.verify(path)["files"],
            }
            for path in (second, first)
        ],
        "attempts": {"0.pod": json.loads((run / "attempts/0.pod.json").read_text())},
        "logs": ["attempts/0.pod.log"],
        "weights": {
            "directory": "best/step-00000100.000002",
            "files": storage.verify(run / "best/step-00000100.000002")["files"],
        },
        "checkpoint": {"directory": "checkpoints/step-00000200.000002", "step": 200, "specHash": "h", "spec": None},
    }


def test_reading_changes_nothing_on_the_volume(volume):
    def state():
        return {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in [volume, *volume.rglob("*")]}

    before = state()
    for arguments in (["x"], ["x", "--data", "datasets/none"], ["x", "--file", "attempts/none"], ["y"]):
        cli(volume, *arguments)
    assert state() == before


def test_a_file_comes_byte_for_byte(volume):
    content = bytes(range(256)) * 1000
    (volume / "runs/x/plot.png").write_bytes(content)
    assert cli(volume, "x", "--file", "plot.png").stdout == content


def test_the_tail_of_a_log_comes_as_it_is(volume):
    answer = cli(volume, "x", "--log-tail", "2", "attempts/0.pod.log")
    assert (answer.returncode, answer.stdout) == (0, b"second\nthird\n")


@given(st.lists(st.binary(max_size=9).map(lambda line: line.replace(b"\n", b"\r"))), st.integers(0, 9))
def test_a_tail_is_the_end_of_all_lines_whatever_the_blocks(lines, count):
    text = b"\n".join(lines)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(read, "_BLOCK_BYTES", 5)
        found = read.tail(io.BytesIO(text), count, len(text))
    assert found == b"".join(io.BytesIO(text).readlines()[-count:] if count else [])


@pytest.mark.parametrize(
    "path", ["../y/secret", "attempts/../../y/secret", "/etc/hostname", "..", "", "a\0b", "link", "away/secret", "up/x"]
)
def test_no_path_leads_out_of_the_run(volume, path):
    (volume / "runs/y").mkdir()
    (volume / "runs/y/secret").write_text("secret")
    run = read.RunFiles(volume, "x")
    (volume / "runs/x/link").symlink_to(volume / "runs/y/secret")
    (volume / "runs/x/away").symlink_to(volume / "runs/y")
    (volume / "runs/x/up").symlink_to("..")
    with pytest.raises(read.BadConfigError, match=r"below runs/x|is a link"):
        run.open(path)


def test_a_linked_record_is_not_part_of_the_document(volume):
    other = volume / "runs" / "y"
    other.mkdir()
    (other / "0.uid.json").write_text('{"secret": 1}')
    (volume / "runs/x/attempts/0.uid.json").symlink_to(other / "0.uid.json")
    (volume / "runs/x/results/0.000009").symlink_to(volume / "runs/x/results/0.000001")
    found = read.document(read.RunFiles(volume, "x"))
    assert list(found["attempts"]) == ["0.pod"]
    assert [result["directory"] for result in found["results"]] == ["results/0.000002", "results/0.000001"]


def test_a_run_that_is_a_link_is_no_run(volume):
    (volume / "runs/linked").symlink_to(volume / "runs/x")
    with pytest.raises(read.BadConfigError, match="there is no run 'linked'"):
        read.RunFiles(volume, "linked")


def test_a_pipe_does_not_hold_the_reader(volume):
    os.mkfifo(volume / "runs/x/pipe")
    with pytest.raises(read.BadConfigError, match="is no file"):
        read.RunFiles(volume, "x").open("pipe")


def test_half_written_files_are_left_out(volume):
    run = volume / "runs" / "x"
    (run / "attempts/1.new.json").write_text('{"index": 1, ')
    (run / "attempts/2.list.json").write_text("[1]")
    (run / "attempts/.tmp-3.json.1-00000000").write_text("{}")
    (run / "results/1.000003").mkdir()
    (run / "results/1.000003/result.json").write_bytes(b"\xff\xfe")
    (run / "results/.tmp-2.000003.1-00000000").mkdir()
    (run / "metrics/1.000001.jsonl").write_text("")
    (run / "best/step-00000300.000002").mkdir()
    found = read.document(read.RunFiles(volume, "x"))
    assert list(found["attempts"]) == ["0.pod"]
    assert [result["directory"] for result in found["results"]] == ["results/0.000002", "results/0.000001"]
    assert found["metrics"]["1.000001"] == []
    assert found["weights"]["directory"] == "best/step-00000100.000002"


def test_numbers_without_a_json_form_become_null(volume):
    (volume / "runs/x/metrics/1.000001.jsonl").write_text('{"step": 1, "loss": NaN}\n')
    answer = cli(volume, "x")
    assert json.loads(answer.stdout, parse_constant=pytest.fail)["metrics"]["1.000001"] == [{"step": 1, "loss": None}]


def test_a_run_without_best_weights_shows_those_of_the_newest_checkpoint(volume):
    (volume / "runs/x/best").rename(volume / "runs/x/other")
    found = read.document(read.RunFiles(volume, "x"))
    assert found["weights"]["directory"] == "checkpoints/step-00000200.000002"


def test_weights_of_a_writer_that_woke_up_late_are_passed_over(volume):
    run = volume / "runs" / "x"
    for _ in range(2):
        take_lease(run, adopt=100)
    publish_weights(run, "best/step-00000180.000001")
    assert read.document(read.RunFiles(volume, "x"))["weights"]["directory"] == "best/step-00000100.000002"


@pytest.mark.timeout(30)
def test_what_no_worker_writes_is_left_out(volume):
    run = volume / "runs/x"
    whole = read.document(read.RunFiles(volume, "x"), "datasets/d")
    for place in ("attempts/0.zero.json", "attempts/0.pipe.json", "results/1.000001/result.json"):
        (run / place).parent.mkdir(exist_ok=True)
    (run / "attempts/0.zero.json").symlink_to("/dev/zero")
    os.mkfifo(run / "attempts/0.pipe.json")
    (run / "attempts/0.deep.json").write_text("[" * 4000)
    (run / "results/1.000001/result.json").symlink_to("/dev/zero")
    with (run / "attempts/0.large.json").open("wb") as file:
        file.truncate(2**40)
    (run / "results/²²²²²²").mkdir()
    (run / "metrics/²².²²²²²².jsonl").touch()
    for name in ("best/step-٣٣٣٣٣٣٣٣.000001", f"best/step-{'9' * 200}.000001", f"results/0.{'9' * 200}"):
        (run / name).mkdir()
    (volume / "datasets/d").mkdir(parents=True)
    (volume / "datasets/d/manifest.json").symlink_to("/dev/zero")
    with (run / "metrics/0.000002.jsonl").open("a") as file:
        file.write('\n{"time": 101, "step": ' + "1" * 400 + "}\n" + "[" * 4000 + "\n")

    found = read.document(read.RunFiles(volume, "x"), "datasets/d")

    last = [line["step"] for line in found["metrics"]["0.000002"]]
    assert last == list(range(99 - len(last) + 1, 100))
    assert {**found, "metrics": None} == {**whole, "metrics": None}


def test_a_manifest_that_names_other_places_names_no_weights(volume):
    manifest = volume / "runs/x/best/step-00000100.000002/manifest.json"
    content = json.loads(manifest.read_bytes())
    content["files"]["../../../.git/config"] = content["files"]["model.safetensors"]
    manifest.write_text(json.dumps(content))
    found = read.document(read.RunFiles(volume, "x"))
    assert found["weights"]["directory"] == "checkpoints/step-00000200.000002"


def test_a_tail_of_an_endless_line_is_bounded():
    assert read.tail(io.BytesIO(b"x" * 10_000), 3, 1000) == b"x" * 1000


def test_a_run_that_has_only_begun_is_an_empty_document(tmp_path):
    (tmp_path / "runs/new").mkdir(parents=True)
    assert read.document(read.RunFiles(tmp_path, "new")) == {
        "schema": "jobctl.read/v1",
        "run": "new",
        "metrics": {},
        "results": [],
        "attempts": {},
        "logs": [],
        "weights": None,
        "checkpoint": None,
    }


def test_a_dataset_is_counted_before_and_after_it_is_complete(volume):
    ledger = volume / "datasets/d/ledger"
    ledger.mkdir(parents=True)
    for number in range(3):
        (ledger / f"{number:06d}.json").write_text("{}")
    run = read.RunFiles(volume, "x")
    assert read.document(run, "datasets/d")["data"] == {"directory": "datasets/d", "manifest": None, "recorded": 3}
    (volume / "datasets/d/manifest.json").write_text('{"episodes": 3}')
    assert read.document(run, "datasets/d")["data"]["manifest"] == {"episodes": 3}


@pytest.mark.parametrize("data", ["../outside", "/etc", "datasets/../../.."])
def test_a_dataset_off_the_volume_is_refused(volume, data):
    with pytest.raises(read.BadConfigError, match="does not lie on the volume"):
        read.document(read.RunFiles(volume, "x"), data)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["xx"], "there is no run 'xx' on the volume; nearest: x"),
        (["../runs/x"], "there is no run '../runs/x' on the volume; nearest: x"),
        (["x", "--file", "attempts/0.pod.lo"], "cannot be read: No such file or directory; nearest: 0.pod.log"),
        (["x", "--file", "attempts"], "cannot be read: Is a directory"),
        (["x", "--log-tail", "-1", "attempts/0.pod.log"], "--log-tail"),
        (["x", "--log-tail", "many", "attempts/0.pod.log"], "'many' must be a number of lines"),
        ([], "the following arguments are required: RUN"),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence_with_code_64(volume, arguments, sentence):
    answer = cli(volume, *arguments)
    assert (answer.returncode, answer.stdout) == (64, b"")
    assert sentence in answer.stderr.decode()
    assert answer.stderr.count(b"\n") == 1


def test_a_volume_that_is_not_mounted_is_said(tmp_path):
    for volume, sentence in (("", b"JOBCTL_VOLUME is not set"), (str(tmp_path / "none"), b"is no directory")):
        answer = cli(tmp_path, "x", JOBCTL_VOLUME=volume)
        assert answer.returncode == 64
        assert sentence in answer.stderr


def test_a_listener_that_left_is_no_traceback(volume):
    (volume / "runs/x/big").write_bytes(b"0" * 1_000_000)
    command = [sys.executable, "-m", "workers", "read", "x", "--file", "big"]
    reader = subprocess.Popen(
        command, env={**os.environ, "JOBCTL_VOLUME": str(volume)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    reader.stdout.close()
    assert reader.stderr.read() == b""
    assert reader.wait(10) == 141


def test_only_the_standard_library_and_the_workers_light_modules_are_imported():
    tree = ast.parse(Path(read.__file__).read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    own = {name for name in names if name.startswith("workers")}
    assert own == {"workers", "workers.errors", "workers.results", "workers.storage"}
    assert {name.split(".")[0] for name in names - own} <= sys.stdlib_module_names
