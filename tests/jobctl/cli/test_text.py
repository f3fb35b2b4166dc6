"""Text is text: what stands in a spec or behind --set is what a process of the job finds in its environment."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from texts import NASTY, TYPED, UNCARRIED, batches

SIZE = 25
TRAIN = ("train", "--data", "datasets/x")
CAREFUL = settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
WORKER = """#!{python}
import json, os
from pathlib import Path
found = {{name.decode(): value.hex() for name, value in os.environb.items()}}
(Path(os.environ["JOBCTL_VOLUME"]) / "environment.json").write_text(json.dumps(found))
"""


@pytest.fixture
def found(home, tmp_path, monkeypatch):
    """Has the workers write down their environment; reads what the last one has found, as bytes."""
    worker = tmp_path / "worker"
    worker.write_text(WORKER.format(python=sys.executable))
    worker.chmod(0o755)
    monkeypatch.setenv("JOBCTL_WORKER_PYTHON", str(worker))

    def read(volume: Path = home / "volumes" / "shared") -> dict[str, bytes]:
        text = (volume / "environment.json").read_text()
        return {name: bytes.fromhex(value) for name, value in json.loads(text).items()}

    return read


def submitted(jobctl, *arguments):
    said = jobctl("submit", *arguments, "--name", "x", "--replace", "--fresh", "--wait")
    assert said.status == 0, said.err


@CAREFUL
@given(batch=batches(2 * SIZE))
@example(batch=[*NASTY, *NASTY][: 2 * SIZE])
def test_any_text_reaches_the_process_by_a_file_and_by_set(jobctl, found, tmp_path, batch):
    given, assigned = batch[:SIZE], batch[SIZE:]
    spec = {"kind": "train", "data": "datasets/x", "env": {f"F{number}": text for number, text in enumerate(given)}}
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(spec), encoding="utf-8")
    sets = [f"--set=env.S{number}={text}" for number, text in enumerate(assigned)]
    submitted(jobctl, "-f", str(tmp_path / "spec.yaml"), *sets)
    environment = found()
    assert [environment[f"F{number}"].decode() for number in range(SIZE)] == given
    assert [environment[f"S{number}"].decode() for number in range(SIZE)] == assigned


def test_what_is_typed_without_quotes_is_what_the_process_gets(jobctl, found, tmp_path):
    lines = "".join(f"  T{number}: {text}\n" for number, text in enumerate(TYPED))
    (tmp_path / "jobctl.yaml").write_text("env:\n" + lines.replace("  T", "  D"))
    (tmp_path / "spec.yaml").write_text("kind: train\ndata: datasets/x\nenv:\n" + lines)
    submitted(jobctl, "-f", str(tmp_path / "spec.yaml"))
    environment = found()
    for letter in "TD":
        assert [environment[f"{letter}{number}"].decode() for number in range(len(TYPED))] == [*TYPED]


@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_a_spec_in_json_is_a_spec(jobctl, found, tmp_path, ensure_ascii):
    spec = {"kind": "train", "data": "datasets/x", "env": {"A": "🚀 \\ud83d\\ude80", "B": "7130e52"}}
    (tmp_path / "spec.json").write_text(json.dumps(spec, ensure_ascii=ensure_ascii), encoding="utf-8")
    submitted(jobctl, "-f", str(tmp_path / "spec.json"))
    assert {name: found()[name].decode() for name in "AB"} == spec["env"]


def test_another_process_types_the_same(program, found):
    sets = [f"--set=env.S{number}={text}" for number, text in enumerate(NASTY)]
    process = program("submit", *TRAIN, "--name", "x", *sets, "--wait")
    said = process.communicate(timeout=60)
    assert process.returncode == 0, said
    environment = found()
    assert [environment[f"S{number}"].decode() for number in range(len(NASTY))] == [*NASTY]


def test_a_file_is_read_in_the_same_way_where_it_gives_the_name(jobctl, found, tmp_path):
    (tmp_path / "x.yaml").write_text("kind: train\ndata: datasets/x\nenv: {NO: x, A: .inf, B: .nan}\n")
    assert jobctl("submit", "-f", "x.yaml", "--wait").status == 0
    assert {name: found()[name] for name in ("NO", "A", "B")} == {"NO": b"x", "A": b".inf", "B": b".nan"}


def test_null_leaves_a_variable_of_the_team_out(jobctl, found, tmp_path):
    (tmp_path / "jobctl.yaml").write_text("env: {A: x, B: x, C: x}\n")
    (tmp_path / "spec.yaml").write_text("kind: train\ndata: datasets/x\nenv: {A: null}\n")
    submitted(jobctl, "-f", str(tmp_path / "spec.yaml"), "--set", "env.B=null", "--set", "env.C=")
    assert [found().get(name) for name in "ABC"] == [None, None, b""]


def test_where_the_home_lies_below_a_mount_paths_are_told_once(jobctl, found, monkeypatch):
    """/tmp is a mount of every pod, and this home lies below it: as $JOBCTL_HOME in /tmp does for anybody."""
    submitted(jobctl, *TRAIN, "--set=env.A=$(HOME)/x", "--set=env.B=/tmp/x", "--set=env.C=x-r1-0.x:29400")
    environment = {name: os.fsdecode(value) for name, value in found().items()}
    assert [environment[name] for name in "ABC"] == ["$(HOME)/x", "/tmp/x", "x-r1-0.x:29400"]
    assert environment["HOME"] == environment["JOBCTL_TMP"]
    assert Path(environment["JOBCTL_TMP"]).parent.name == "v"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("env.A=\udcff", "env.A holds U+DCFF"),
        ("env.\udcff=[", "env.\\udcff' holds U+DCFF"),
        ("deadlineSeconds=\udcff", "deadlineSeconds holds U+DCFF"),
        ("env.A=" + "x" * 131_070, "env.A has 131073 bytes"),
        ("pod.labels.a=no label", "pod.labels.a is 'no label'"),
        ("env.JOBCTL_TERMINATION_LOG=/./home/x", "env.JOBCTL_TERMINATION_LOG can't be set"),
    ],
)
def test_what_no_process_or_cluster_can_hold_is_refused_by_its_key(jobctl, backend, text, sentence):
    said = jobctl("submit", *TRAIN, "--name", "x", "--set", text)
    assert (said.status, sentence in said.error, "Traceback" in said.err) == (2, True, False)
    assert backend.records() == []


@pytest.mark.parametrize("text", UNCARRIED)
def test_what_the_kubernetes_api_refuses_or_changes_is_refused_on_every_backend(jobctl, backend, tmp_path, text):
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump({"kind": "train", "env": {"A": text}}), encoding="utf-8")
    for arguments in ((*TRAIN, f"--set=env.A={text}"), ("-f", "spec.yaml")):
        said = jobctl("submit", *arguments)
        assert (said.status, "env.A holds U+" in said.error) == (2, True)
    assert backend.records() == []


@pytest.mark.parametrize("flag", ["--data", "--image", "--name", "--task", "--gpu"])
def test_a_flag_whose_bytes_are_no_text_is_refused(jobctl, backend, flag):
    said = jobctl("submit", *TRAIN, flag, "x\udcff")
    assert (said.status, "U+DCFF" in said.error, "Traceback" in said.err) == (2, True, False)
    assert backend.records() == []


def test_what_render_prints_is_read_as_it_was_meant(jobctl):
    said = jobctl("render", *TRAIN, *[f"--set=pod.annotations.a{n}={text}" for n, text in enumerate(NASTY)])
    job = next(document for document in yaml.safe_load_all(said.out) if document["kind"] == "Job")
    annotations = job["spec"]["template"]["metadata"]["annotations"]
    assert [annotations[f"a{number}"] for number in range(len(NASTY))] == [*NASTY]
