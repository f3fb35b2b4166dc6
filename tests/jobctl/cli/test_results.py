"""results. Pods run fake_worker.py, everything else is real."""

import json
from hashlib import sha256

from held import hold_at

TRAIN = ("train", "--name", "x", "--data", "datasets/x")


def test_results_show_figures_tables_report_and_plots(jobctl, home):
    jobctl("submit", *TRAIN, "--wait")
    said = jobctl("results", "x")
    lines = [line.split() for line in said.out.splitlines()]
    assert said.status == 0
    assert lines[0] == ["x:", "done", "(exit", "code", "0)"]
    assert ["f1", "0.41"] in lines and ["HORIZON", "F1"] in lines and ["9", "0.4"] in lines
    for kind, name in (("report", "report.html"), ("plot", "plots/curve.png")):
        assert f"{kind}: {home}/volumes/shared/runs/x/results/0.000001/{name}" in said.out


def test_details_are_named_in_the_table_and_told_in_the_document(jobctl):
    jobctl("submit", *TRAIN, "--wait")
    table, document = jobctl("results", "x").out, jobctl("results", "x", "-o", "json").out
    assert "in the report: by episode" in table and "4711" not in table
    assert json.loads(document)["result"]["tables"]["by_episode"]["rows"] == [[4711, 0.4]]


def test_results_are_fetched_with_plots_and_weights(jobctl, tmp_path):
    jobctl("submit", *TRAIN, "--wait")
    said = jobctl("results", "x", "--to", "out", "-o", "json")
    fetched = {str(path.relative_to(tmp_path)) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert fetched == {"out/plots/curve.png", "out/report.html", "out/result.json", "out/weights/model.safetensors"}
    assert set(json.loads(said.out)["fetched"]) == fetched
    assert (tmp_path / "out/weights/model.safetensors").read_bytes() == b"weights"
    again = jobctl("results", "x", "-d", "out")
    assert (again.status, "out/plots/curve.png is there already" in again.error) == (2, True)
    assert jobctl("results", "x", "-d", "out", "--force").status == 0


def test_a_damaged_file_is_not_fetched(jobctl, home, tmp_path):
    jobctl("submit", *TRAIN, "--wait")
    (home / "volumes/shared/runs/x/best/step-00000003.000001/model.safetensors").write_bytes(b"other")
    said = jobctl("results", "x", "-d", "out")
    assert (said.status, "model.safetensors is damaged" in said.error) == (1, True)
    assert not (tmp_path / "out/weights/model.safetensors").exists()


def test_results_of_a_job_without_any_are_not_found(jobctl):
    jobctl("submit", *TRAIN, hold_at(2))
    said = jobctl("results", "x")
    assert (said.status, "x has no result yet: its job is " in said.error) == (3, True)


def test_a_target_that_is_a_file_is_refused(jobctl, tmp_path):
    jobctl("submit", *TRAIN, "--wait")
    (tmp_path / "out").touch()
    assert jobctl("results", "x", "-d", "out").status == 2


def test_a_forged_result_writes_nothing_but_what_a_result_can_have_and_says_so(jobctl, home, tmp_path):
    jobctl("submit", *TRAIN, "--wait")
    forged = home / "volumes/shared/runs/x/results/run.000001"
    (forged / ".git").mkdir(parents=True)
    files = {"result.json": b"{}", ".git/config": b"[core]", "Makefile": b"all:", "../../../../../../escaped": b"x"}
    for name, data in files.items():
        (forged / name).write_bytes(data)
    entries = {name: {"bytes": len(data), "sha256": sha256(data).hexdigest()} for name, data in files.items()}
    (forged / "manifest.json").write_text(json.dumps({"files": entries}))
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(home)}
    said = jobctl("results", "x", "--to", ".")
    assert said.status == 0 and "Makefile" in said.err and ".git/config" in said.err
    after = {path for path in tmp_path.rglob("*") if not path.is_relative_to(home)}
    assert {str(path.relative_to(tmp_path)) for path in after - before} == {
        "result.json",
        "weights",
        "weights/model.safetensors",
    }
    again = jobctl("results", "x", "--to", ".")
    assert (again.status, "result.json is there already" in again.error, "--force" in again.error) == (2, True, True)
