"""What lies on a volume or is printed by a pod may be anything: one job's trouble stays its own, and is text."""

import json
import os
import re
import shutil
import signal
import unicodedata
from pathlib import Path

import pytest
import yaml
from held import hold_at
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobctl.cli import output, read

TRAIN = ("train", "--data", "datasets/x", "--name")
BIDIRECTIONAL = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
DEEP = '{"a":' + "[" * 4000 + "]" * 4000 + "}"


def write(text):
    return lambda path: path.write_text(text)


# How a file of a job's state can be spoilt.
SPOILT = {
    "empty": write(""),
    "brackets": write("[" * 4000),
    "deep": write(DEEP),
    "no object": write("[1]"),
    "an object of nothing": write("{}"),
    "of other types": write('{"name": 1, "revision": "x", "job": [], "pods": {}, "supervisor": 7}'),
    "a number of 400 digits": write('{"revision": ' + "9" * 400 + "}"),
    "bytes": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "a directory": lambda path: path.mkdir(),
    "a pipe": lambda path: os.mkfifo(path),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
}


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Where the first test that needs them leaves two jobs that are done, for all others."""
    return tmp_path_factory.mktemp("template") / "home"


@pytest.fixture
def two_jobs(jobctl, home, template):
    """`good` and `bad`, both done; the directory of bad's only revision."""
    if template.exists():
        shutil.copytree(template, home)
    else:
        for name in ("good", "bad"):
            assert jobctl("submit", *TRAIN, name, "--wait").status == 0
        shutil.copytree(home, template)
    (revision,) = (home / "local/bad").iterdir()
    return revision


@pytest.mark.parametrize("how", SPOILT)
def test_a_job_that_can_not_be_read_is_unknown_the_others_are_listed_and_it_can_be_deleted(how, two_jobs, jobctl):
    for name in ("status.json", "pulse.json"):
        (two_jobs / name).unlink()
        SPOILT[how](two_jobs / name)
    listed = {job["name"]: job for job in json.loads(jobctl("list", "-o", "json").out)["jobs"]}
    assert {name: (job["state"], job["kind"]) for name, job in listed.items()} == {
        "good": ("succeeded", "train"),
        "bad": ("unknown", "train"),
    }
    assert str(two_jobs / "status.json") in listed["bad"]["reason"]
    assert "jobctl delete bad" in jobctl("status", "bad").out
    assert jobctl("wait", "bad").status == 1
    assert jobctl("resume", "bad").status == jobctl("cancel", "bad").status == 5
    assert jobctl("delete", "bad").status == 0
    assert [line.split()[0] for line in jobctl("list").out.splitlines()[2:]] == ["good"]


def test_where_the_submission_can_not_be_read_either_it_still_is_listed_and_deleted(two_jobs, jobctl):
    for name in ("status.json", "release.json"):
        (two_jobs / name).write_text("")
    assert json.loads(jobctl("status", "bad", "-o", "json").out)["job"]["state"] == "unknown"
    assert (jobctl("retry", "bad").status, jobctl("list").status) == (5, 0)
    assert jobctl("delete", "bad").status == 0


def test_a_job_whose_status_is_spoilt_while_it_runs_ends_when_it_is_deleted(jobctl, backend, home, eventually):
    jobctl("submit", *TRAIN, "x", hold_at(2))
    supervisor = backend.supervisor_pid("x")
    (revision,) = (home / "local/x").iterdir()
    for name in ("status.json", "pulse.json"):
        (revision / name).write_text("")
    assert jobctl("delete", "x").status == 0
    eventually(lambda: not Path(f"/proc/{supervisor}").exists())
    assert jobctl("list", "-o", "json").status == 0 and backend.records() == []
    assert not (home / "local/x").exists()


def test_a_damaged_submission_is_named_where_a_supervisor_needs_it(jobctl, backend, home, eventually):
    jobctl("submit", *TRAIN, "x", hold_at(2))
    supervisor = backend.supervisor_pid("x")
    jobctl("suspend", "x")
    os.kill(supervisor, signal.SIGKILL)
    eventually(lambda: backend.record("x").controller == "gone")
    (release,) = home.glob("local/x/*/release.json")
    release.write_text("{}")
    said = jobctl("resume", "x")
    assert (said.status, str(release) in said.error) == (1, True)


MESSAGES = {
    "brackets": "[" * 4000,
    "deep": DEEP[:4090],
    "a step of 400 digits": '{"reason": "crashed", "step": ' + "9" * 400 + ', "steps": 1e999}',
    "other types": '{"reason": {"a": []}, "step": [], "code": "x", "figures": 7}',
    "surrogates": '{"reason": "\\ud800 \\u001b[31m"}',
    "no text": "\x00\x1b]0;title\x07",
}


@pytest.mark.parametrize("what", MESSAGES)
def test_a_pod_may_say_anything_at_its_end(what, two_jobs, jobctl):
    status = json.loads((two_jobs / "status.json").read_text())
    state = status["pods"][0]["status"]["containerStatuses"][0]["state"]
    state["terminated"].update(message=MESSAGES[what], exitCode=1)
    status["job"]["status"]["conditions"] = [{"type": "Failed", "status": "True", "reason": "FailedIndexes"}]
    (two_jobs / "status.json").write_text(json.dumps(status))
    for arguments in (("list",), ("list", "-o", "json"), ("status", "bad"), ("status", "bad", "-o", "yaml")):
        said = jobctl(*arguments)
        assert said.status == 0 and "\x1b" not in said.out


METRICS = {
    "a step of 400 digits": '{"time": 1, "step": ' + "9" * 400 + "}",
    "a step without an end": '{"time": 1, "step": 1e999}',
    "steps of nothing": '{"time": 1, "step": 1, "steps": 0}',
    "negative": '{"time": -1e300, "step": -5, "steps": -5}',
    "no time": '{"time": "x", "step": 3, "steps": 5, "loss": NaN}',
    "a time without an end": '{"time": 1e308, "step": 3}\n{"time": -1e308, "step": 4}',
    "deep": DEEP,
    "a figure of controls": '{"time": 1, "step": 3, "\\u001b[31m": 4}',
}


@pytest.mark.parametrize("what", METRICS)
def test_a_metrics_line_may_hold_anything(what, two_jobs, jobctl, home):
    (home / "volumes/shared/runs/bad/metrics/0.000001.jsonl").write_text(METRICS[what] + "\n")
    for arguments in (("list",), ("list", "-o", "json"), ("status", "bad"), ("status", "bad", "-o", "yaml")):
        assert jobctl(*arguments).status == 0


TABLES = {
    "no table": 7,
    "columns that are none": {"columns": "abc", "rows": [[1]]},
    "no rows": {"columns": ["a"]},
    "ragged rows": {"columns": ["a", "b"], "rows": [[1], [1, 2, 3], [], 5, None, {"a": 1}]},
    "rows of mappings": {"columns": ["a"], "rows": [{"a": 1}]},
    "cells of everything": {"columns": ["a", None, [1]], "rows": [[{"x": [1]}, [None], "\x1b[31m"]]},
    "columns twice": {"columns": ["a", "a", "a_low", "a_high"], "rows": [[1, 2, 3, 4]]},
    "too many columns": {"columns": [0] * 100_000, "rows": [[1]]},
    "too many rows": {"columns": ["a"], "rows": [[1]] * 20_000},
    "details that are no truth": {"columns": ["a"], "rows": [], "detail": [1]},
}


@pytest.fixture(scope="module")
def finished_volume():
    """A run with one result, whose data the tests write."""
    return {"exitCode": 0, "reason": "done", "figures": {}, "tables": {}}


@pytest.mark.parametrize("what", TABLES)
def test_a_table_may_be_none(what, jobctl, home, finished_volume):
    directory = home / "volumes/shared/runs/x/results/run.000001"
    directory.mkdir(parents=True)
    (directory / "result.json").write_text(json.dumps(finished_volume | {"tables": {"odd": TABLES[what]}}))
    said = jobctl("results", "x")
    assert said.status == 0 and len(said.out) < 100_000
    assert json.loads(jobctl("results", "x", "-o", "json").out)["result"]["tables"]["odd"] == TABLES[what]


ANY_TEXT = st.text(st.characters(), max_size=20) | st.sampled_from(
    [
        "\x1b]8;;http://x\x07",
        "\x9b31m",
        "a\x00b",
        "a\nb",
        "a\rb",
        "\u202eevil",
        "\u2028",
        "\x7f",
        "🚀é",
        "[red]x[/red]",
        "\t",
    ]
)
TEXTS = ANY_TEXT.map(lambda text: text.encode("utf-8", "replace").decode())  # as a volume can hold it


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_any_text_from_a_volume_is_printed_as_text_and_exact_for_programs(text, jobctl, home, finished_volume):
    directory = home / "volumes/shared/runs/x/results/run.000001"
    directory.mkdir(parents=True, exist_ok=True)
    table = {"columns": [text, "b"], "rows": [[text, 1]]}
    data = finished_volume | {"reason": text, "figures": {text: 1.5}, "tables": {text: table}}
    (directory / "result.json").write_text(json.dumps(data))
    shown = jobctl("results", "x")
    assert shown.status == 0 and no_controls(shown.out) and no_controls(shown.err)
    for form, parse in (("json", json.loads), ("yaml", safe_load)):
        said = jobctl("results", "x", "-o", form)
        assert no_controls(said.out)
        result = parse(said.out)["result"]
        assert (result["figures"], result["tables"]) == ({text: 1.5}, {text: table})
        assert result["reason"] == (text or None)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=TEXTS)
def test_any_text_of_a_pod_is_printed_as_text_and_exact_for_programs(text, jobctl, two_jobs):
    log, status_file = two_jobs / "pods/0000/log", two_jobs / "status.json"
    log.write_bytes(text.encode())
    status = json.loads(status_file.read_text())
    state = status["pods"][0]["status"]["containerStatuses"][0]["state"]
    state["terminated"].update(message=json.dumps({"reason": text}), exitCode=1)
    status["pods"][0]["metadata"]["name"] = text
    status["job"]["status"]["conditions"] = [{"type": "Failed", "status": "True", "reason": "FailedIndexes"}]
    status_file.write_text(json.dumps(status))
    for command in (
        ("list",),
        ("status", "bad"),
        ("logs", "bad"),
        ("logs", "bad", "-o", "yaml"),
        ("status", "bad", "-o", "json"),
    ):
        said = jobctl(*command)
        assert said.status == 0 and no_controls(said.out) and no_controls(said.err)
    lines = [json.loads(line)["text"] for line in jobctl("logs", "bad", "-o", "json").out.splitlines()]
    printed = text.removesuffix("\n").split("\n") if text else []
    assert lines == [line.removesuffix("\r") for line in printed]
    document = json.loads(jobctl("status", "bad", "-o", "json").out)["job"]
    assert document["replicaStatuses"][0]["pod"] == text


def test_jobs_whose_progress_takes_too_long_are_listed_without_it(two_jobs, jobctl, monkeypatch):
    monkeypatch.setattr(read, "PROGRESS_SECONDS", -1.0)
    said = jobctl("list", "-o", "json")
    assert {job["name"]: job["progress"] for job in json.loads(said.out)["jobs"]} == {"good": None, "bad": None}
    assert "2 jobs are listed without their progress" in said.err


def test_a_progress_bar_stands_below_itself_with_the_index_before_each_part(jobctl, capfd):
    from jobctl.cli.logs import _say

    capfd.readouterr()
    _say("[3] ", "\r 10 %\r 20 %\x1b[K")
    assert capfd.readouterr().out == "[3]  10 %\n[3]  20 %\\x1b[K\n"


def test_an_error_that_quotes_what_was_typed_is_text(jobctl):
    said = jobctl("status", "\x1b[31mx")
    assert (said.status, "\x1b" in said.err, r"\x1b[31mx" in said.err) == (3, False, True)


def test_all_output_of_commands_goes_through_one_function():
    printing = re.compile(r"\bclick\.(echo|secho)\(|\bprint\(|\bstd(out|err)\.write\(")
    found = {path.name for path in Path(output.__file__).parent.glob("*.py") if printing.search(path.read_text())}
    assert found == {"output.py", "main.py", "program.py"}  # the last two print their own help
    assert "click.echo(" not in (Path(output.__file__).parent / "program.py").read_text()


def no_controls(text: str) -> bool:
    return not any(
        unicodedata.category(character) in ("Cc", "Zl", "Zp", "Cs") or character in BIDIRECTIONAL
        for character in text.replace("\n", "").replace("\t", "")
    )


def safe_load(text: str) -> object:
    return yaml.load(text, Loader=yaml.CSafeLoader)
