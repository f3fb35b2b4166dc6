"""What a spec, or a file that is found beside it, can't do on this machine unless its user says so."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

TRAIN = ("train", "--name", "x", "--data", "datasets/x")
SECRET = "--set=secretEnv.TOKEN={secret: s, key: k}"


@pytest.fixture
def worker(home, tmp_path, monkeypatch):
    """Has workers leave their variables on the volume; what the last one had."""
    path = tmp_path / "worker"
    path.write_text('#!/bin/sh\nenv -0 > "$JOBCTL_VOLUME/environment"\n')
    path.chmod(0o755)
    monkeypatch.setenv("JOBCTL_WORKER_PYTHON", str(path))

    def read() -> dict[str, str]:
        text = (home / "volumes" / "shared" / "environment").read_text()
        return dict(entry.split("=", 1) for entry in text.split("\0") if entry)

    return read


def put_secret(home: Path, text: str, mode: int = 0o600) -> Path:
    path = home / "secrets" / "s" / "k"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    path.chmod(mode)
    return path


def written_below(home: Path) -> dict[Path, bytes]:
    kept = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    return {path: text for path, text in kept.items() if "volumes" not in path.parts and "secrets" not in path.parts}


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("submit", "PYTHONWARNINGS"),
        ("submit", "LD_PRELOAD"),
        ("submit", "BROWSER"),
        ("render", "HOME"),
        ("submit", "OPENSSL_CONF"),
    ],
)
def test_a_variable_that_runs_code_is_refused_and_the_sentence_says_how_to_allow_it(jobctl, backend, command, name):
    said = jobctl(command, *TRAIN, f"--set=env.{name}=x")
    assert (said.status, f"env.{name}" in said.error, f"--allow-env {name}" in said.error) == (5, True, True)
    assert jobctl(command, *TRAIN, f"--set=secretEnv.{name}={{secret: s, key: k}}").status == 5
    assert backend.records() == []


def test_where_a_command_is_typed_no_module_is_looked_for(jobctl, home, tmp_path, monkeypatch):
    (home / "volumes" / "shared").mkdir(parents=True)
    (tmp_path / "workers").mkdir()
    for module in (tmp_path / "workers" / "__init__.py", tmp_path / "argparse.py"):
        module.write_text("import pathlib; pathlib.Path(__file__).with_suffix('.ran').touch()")
    monkeypatch.setenv("JOBCTL_WORKER_PYTHON", sys.executable)
    assert jobctl("data", "list").status == 3
    assert [*tmp_path.rglob("*.ran")] == []


def test_it_is_set_once_its_name_is_typed_which_no_file_can_do(jobctl, worker, tmp_path):
    (tmp_path / "jobctl.yaml").write_text("env: {PYTHONWARNINGS: error, BROWSER: nothing}\n")
    said = jobctl("submit", *TRAIN, "--allow-env", "PYTHONWARNINGS")
    assert (said.status, "--allow-env BROWSER" in said.error) == (5, True)
    assert jobctl("submit", *TRAIN, "--allow-env", "PYTHONWARNINGS", "--allow-env", "BROWSER", "--wait").status == 0
    assert (worker()["PYTHONWARNINGS"], worker()["BROWSER"]) == ("error", "nothing")
    (tmp_path / "jobctl.yaml").write_text("allowEnv: [BROWSER]\n")
    assert jobctl("submit", *TRAIN).status == 2


def test_retry_wants_it_typed_again(jobctl, backend):
    arguments = (*TRAIN, "--set=env.FAKE_EXIT_ONCE=64", "--set=env.PYTHONWARNINGS=default")
    assert jobctl("submit", *arguments, "--allow-env", "PYTHONWARNINGS", "--wait").status == 1
    said = jobctl("retry", "x")
    assert (said.status, "--allow-env PYTHONWARNINGS" in said.error) == (5, True)
    assert jobctl("retry", "x", "--allow-env", "PYTHONWARNINGS", "--wait").status == 0
    assert backend.record("x").revision == 2


@pytest.mark.parametrize("name", ["JOBCTL_VOLUME", "JOBCTL_CONFIG", "JOBCTL_TERMINATION_LOG", "JOB_COMPLETION_INDEX"])
def test_what_wires_a_pod_can_be_set_by_nobody(jobctl, name):
    said = jobctl("submit", *TRAIN, f"--set=env.{name}=/./x", "--allow-env", name)
    assert (said.status, f"env.{name} can't be set" in said.error) == (2, True)


def test_submit_says_which_file_of_the_team_took_part_and_what_it_sets(jobctl, tmp_path):
    config = tmp_path / "config" / "jobctl"
    config.mkdir(parents=True)
    (config / "jobctl.yaml").write_text("retry: {perReplica: 1}\n")
    (tmp_path / "jobctl.yaml").write_text('env: {A: x, "B\\x1b[31m": y}\nreplicas: 1\n')
    said = jobctl("submit", *TRAIN)
    assert f"defaults: {config / 'jobctl.yaml'} sets retry.perReplica\n" in said.err
    assert f"defaults: {Path('jobctl.yaml')} sets env.A, 'env.B\\x1b[31m', replicas\n" in said.err
    (tmp_path / "jobctl.yaml").unlink()
    (config / "jobctl.yaml").unlink()
    assert "defaults:" not in jobctl("submit", *TRAIN).err


def test_a_secret_comes_out_of_a_file_before_the_callers_environment_and_is_written_nowhere(
    jobctl, worker, home, monkeypatch
):
    monkeypatch.setenv("TOKEN", "from the shell $(HOME)")
    assert jobctl("submit", *TRAIN, SECRET, "--wait").status == 0
    assert worker()["TOKEN"] == "from the shell $(HOME)"
    put_secret(home, "from a file\n$$")
    assert jobctl("submit", *TRAIN, SECRET, "--fresh", "--wait").status == 0
    assert worker()["TOKEN"] == "from a file\n$$"
    files = written_below(home)
    assert len(files) > 5
    assert [path for path, text in files.items() if b"from a file" in text or b"from the shell" in text] == []


def test_a_secret_that_others_can_read_or_that_is_not_there_is_refused(jobctl, home, backend):
    said = jobctl("submit", *TRAIN, SECRET)
    place = home / "secrets" / "s" / "k"
    assert (said.status, "secretEnv.TOKEN" in said.error, str(place) in said.error) == (5, True, True)
    path = put_secret(home, "x", 0o644)
    said = jobctl("submit", *TRAIN, SECRET)
    assert (said.status, f"chmod 600 {path}" in said.error) == (5, True)
    path.unlink()
    os.mkfifo(path, 0o600)
    assert jobctl("submit", *TRAIN, SECRET).status == 5
    assert backend.records() == []


@pytest.mark.parametrize("loose", [None, 0o755, 0o750])
def test_a_home_is_its_owners_alone(jobctl, home, loose):
    if loose:
        home.mkdir(mode=loose)
        home.chmod(loose)
    assert jobctl("submit", *TRAIN, "--set=env.TOKEN=s3cret", "--wait").status == 0
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (home / "local" / "x").glob("r1-*/*.json")}
    assert files == dict.fromkeys(("pulse.json", "release.json", "status.json"), 0o600)


def test_the_worker_s_config_has_no_value_of_the_environment_and_a_difference_is_named(jobctl, backend):
    jobctl("submit", *TRAIN, "--set=env.A=s3cret", "--set=env.B=x", "--wait")
    (config_map,) = (one for one in json.loads(release_of(backend)) if one["kind"] == "ConfigMap")
    assert "s3cret" not in json.dumps(config_map)
    said = jobctl("submit", *TRAIN, "--set=env.A=other", "--set=env.B=x")
    assert (said.status, "they differ in env.A)" in said.error) == (2, True)


def release_of(backend) -> str:
    (path,) = (backend.home / "local" / "x").glob("r1-*/release.json")
    return json.dumps(json.loads(path.read_text())["manifest"])
