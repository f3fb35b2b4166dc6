"""Every rendered object is one that Kubernetes knows, and every generated file is up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from jobctl import profiles

ROOT = Path(__file__).resolve().parents[2]
SPECS = sorted((ROOT / "tests" / "chart" / "specs").glob("*.yaml"))
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", [*SPECS, *EXAMPLES], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_objects_of_specs_and_examples_fit_the_strict_schema(render_file, schema_errors, path):
    objects = render_file(path)
    assert objects
    assert [error for document in objects for error in schema_errors(document)] == []


@pytest.mark.parametrize("gpu", profiles.names())
@pytest.mark.parametrize("kind", ["collect", "train", "eval"])
def test_objects_of_every_profile_and_kind_fit_the_strict_schema(render, schema_errors, gpu, kind):
    objects = render({"kind": kind, "gpu": gpu, "replicas": 2, "from": "r" if kind == "eval" else None})
    assert [error for document in objects for error in schema_errors(document)] == []


def test_the_strict_schema_notices_a_field_that_does_not_exist(render, pick, schema_errors):
    job = pick(render({"kind": "train"}), "Job")
    job["spec"]["backoffLimitPerIndx"] = 3
    job["spec"]["template"]["spec"]["containers"][0]["ports"][0]["containerPort"] = "9400"
    assert len(schema_errors(job)) == 2


@pytest.mark.parametrize("chart", ["jobctl", "jobctl-platform"])
def test_lint_has_nothing_against_the_chart(run_helm, chart):
    done = run_helm("lint", "--strict", str(ROOT / "charts" / chart))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize("script", ["schemas.py", "golden.py"])
def test_generated_files_are_what_the_script_would_write(script):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / script, "--check"], capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_notes_tell_what_to_type_next(run_helm):
    chart = str(ROOT / "charts" / "jobctl")
    arguments = [
        "install",
        "demo-1",
        chart,
        "--set",
        "kind=train",
        "--set",
        "replicas=2",
        "--dry-run=client",
        "-n",
        "team",
    ]
    notes = run_helm(*arguments).stdout.partition("NOTES:")[2]
    for command in (
        "jobctl status demo-1",
        "jobctl logs -f demo-1",
        "jobctl wait demo-1",
        "kubectl -n team get job,pod -l app.kubernetes.io/instance=demo-1",
        "job/demo-1-r1",
        "revision 1,",
        "2 replicas",
    ):
        assert command in notes
