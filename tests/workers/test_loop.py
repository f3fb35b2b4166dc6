"""The loop's entry: what a kind's module raises becomes an exit code and one sentence."""

import json
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

from workers import errors, loop
from workers.runtime import Runtime

DRIVER = """
import sys, types
from pathlib import Path
from workers import errors, loop
module = types.ModuleType("fake_kind")
def run(config, runtime):
    runtime.progress(step=4)
{body}
module.run = run
sys.modules["fake_kind"] = module
loop.MODULES["train"] = "fake_kind"
loop.leave(loop.main("train", Path(sys.argv[1])))
"""


def written_config(tmp_path: Path, text: str | None = None) -> Path:
    path = tmp_path / "config.json"
    values = {"version": "0.1.0", "run": "x", "kind": "train", "task": "predictor", "specHash": "h"}
    path.write_text(json.dumps(values) if text is None else text)
    return path


def run(tmp_path: Path, body: str, config: str | None = None) -> tuple[int, str, dict]:
    """(exit code, stderr, summary)"""
    path = written_config(tmp_path, config)
    summary = tmp_path / "summary.json"
    env = os.environ | {"JOBCTL_VOLUME": str(tmp_path), "JOBCTL_SUMMARY": str(summary)}
    env.pop("JOBCTL_SUPERVISOR_PID", None)
    script = DRIVER.format(body=textwrap.indent(body, "    "))
    done = subprocess.run([sys.executable, "-c", script, str(path)], env=env, capture_output=True, text=True)
    return done.returncode, done.stderr, json.loads(summary.read_text())["summary"]


def test_a_library_that_crashes_as_the_interpreter_ends_takes_nothing_back(tmp_path):
    crash = "import atexit, os, signal; atexit.register(os.kill, os.getpid(), signal.SIGSEGV)"
    code, _, summary = run(tmp_path, crash)
    assert (code, summary) == (0, {"step": 4, "code": 0, "reason": "done"})


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("BadConfigError", 64),
        ("BadDataError", 65),
        ("GateMissedError", 66),
        ("StuckError", 70),
        ("InterruptedRun", 75),
        ("PeersLostError", 76),
    ],
)
def test_an_expected_end_is_one_sentence_and_its_own_code(tmp_path, monkeypatch, error, code):
    def raising(config: object, runtime: Runtime) -> None:
        raise getattr(errors, error)("it is so")

    monkeypatch.setitem(sys.modules, "raising_kind", types.SimpleNamespace(run=raising))
    monkeypatch.setitem(loop.MODULES, "train", "raising_kind")
    found = loop._run("train", written_config(tmp_path), Runtime(volume=tmp_path, tmp=tmp_path))
    assert found == (code, "it is so")


def test_a_crash_is_code_1_with_a_traceback_in_the_log_and_a_short_reason(tmp_path):
    code, stderr, summary = run(tmp_path, "raise ZeroDivisionError('a\\nb')")
    assert (code, summary["reason"]) == (1, "ZeroDivisionError: a b")
    assert "Traceback" in stderr


def test_a_full_disk_is_told_as_that(tmp_path):
    code, _, summary = run(tmp_path, "raise OSError(28, 'No space left on device', '/shared/x')")
    assert (code, summary["reason"]) == (1, "the volume is full: /shared/x cannot be written")


def test_a_loop_that_returns_ends_with_0(tmp_path):
    assert run(tmp_path, "pass") == (0, "", {"step": 4, "code": 0, "reason": "done"})


def test_sigterm_sets_the_stop_flag(tmp_path):
    kill = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n"
    body = kill + "assert runtime.stop.wait(5)\nraise errors.InterruptedRun('x')"
    assert run(tmp_path, body)[0] == 75


def test_a_bad_config_is_one_sentence_and_64(tmp_path):
    code, stderr, summary = run(tmp_path, "pass", config='{"run": 3}')
    assert (code, summary["code"]) == (64, 64)
    assert "config.version is missing" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("arguments", "why"),
    [(["trian", "--config", "x"], "invalid choice: 'trian'"), (["train"], "required: --config")],
)
def test_wrong_arguments_are_told_and_64(arguments, why):
    done = subprocess.run([sys.executable, "-m", "workers", *arguments], capture_output=True, text=True)
    assert done.returncode == 64
    assert why in done.stderr
