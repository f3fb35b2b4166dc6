"""What the chart really renders runs here: no field of it may be one that local refuses."""

import re

import pytest

from jobctl.helm import template
from jobctl.local.translate import translate

SPECS = {
    "collect": {"kind": "collect", "gpu": "cpu", "replicas": 3},
    "train": {"kind": "train", "gpu": "cpu"},
    "group": {"kind": "train", "gpu": "cpu", "replicas": 2},
    "gpu": {"kind": "train", "gpu": "a100", "scheduling": {"spot": True}},
    "eval": {"kind": "eval", "gpu": "cpu", "from": "x", "data": "datasets/x"},
}


@pytest.mark.parametrize("values", SPECS.values(), ids=SPECS)
def test_every_kind_of_job_can_be_translated(values):
    plan = translate(template("x", values))
    assert plan.completions == values.get("replicas", 1)
    assert plan.template.container.command[:3] == ("python", "-m", "workers")
    assert plan.backoff_limit_per_index == 3


@pytest.mark.parametrize("values", SPECS.values(), ids=SPECS)
def test_every_path_and_host_of_the_chart_stands_where_it_is_rewritten(values):
    for variable in translate(template("x", values)).template.container.env:
        assert variable.is_wired or not re.search(r"/|\.x\b", variable.value), variable


def test_the_worker_of_a_group_gets_addresses_paths_and_a_summary_s_place(home, monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$@"; cat "$5" | head -1; printf summary > $JOBCTL_TERMINATION_LOG; env\n')
    python.chmod(0o755)
    monkeypatch.setenv("JOBCTL_WORKER_PYTHON", str(python))
    home.submit("x", template("x", SPECS["group"]))
    record = home.wait("x", lambda record: record.controller == "finished")
    (pod,) = [pod for pod in record.pods if pod["metadata"]["name"].startswith("x-r1-0-")]
    lines = home.log("x", 0)
    env = dict(line.split("=", 1) for line in lines[2:])
    assert lines[0].split()[:4] == ["-m", "workers", "train", "--config"]
    assert lines[1] == "{"
    assert env["JOBCTL_STORE"] == f"{pod['status']['podIP']}:29400"
    assert env["JOBCTL_VOLUME"] == str(home.path / "volumes" / "shared")
    assert env["JOBCTL_JOB_UID"] == record.job["metadata"]["uid"]
    assert env["JOBCTL_POD_UID"] == pod["metadata"]["uid"]
    assert pod["status"]["containerStatuses"][0]["state"]["terminated"]["message"] == "summary"
