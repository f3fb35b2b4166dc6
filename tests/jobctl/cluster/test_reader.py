"""The pod that reads a volume. That it runs is seen in tests/cluster."""

import json

import pytest

from jobctl.cluster.reader import PodReader, exit_code_of
from jobctl.cluster.refusals import Place
from jobctl.errors import JobctlError


class FakeApi:
    place = Place("https://10.0.0.1", "prod", "team")


FILE = {"bytes": 3, "sha256": "0" * 64}
DOCUMENT = {
    "schema": "jobctl.read/v1",
    "run": "x",
    "metrics": {"0.000002": [{"time": 1.0, "step": 3}]},
    "results": [{"directory": "results/run.000001", "data": {"exitCode": 0}, "files": {"plots/a.png": FILE}}],
    "attempts": {"0.a": {"pod": "x-r1-0-a"}},
    "logs": ["attempts/0.a.log"],
    "weights": {"directory": "best/step-00000003.000002", "files": {"model.safetensors": FILE}},
}


@pytest.fixture
def reader(monkeypatch) -> PodReader:
    reader = PodReader(FakeApi(), "disk", "worker:1")
    monkeypatch.setattr(reader, "_exec", lambda command: (chunk for chunk in [json.dumps(DOCUMENT).encode()]))
    return reader


def test_it_answers_all_questions_from_one_document(reader):
    (result,) = reader.results("x")
    assert (result.directory, result.exit_code, result.plots) == (
        "results/run.000001", 0, ["results/run.000001/plots/a.png"],
    )  # fmt: skip
    assert reader.metrics("x") == [[{"time": 1.0, "step": 3}]]
    assert (reader.attempts("x"), reader.logs("x")) == (["0.a"], ["attempts/0.a.log"])
    assert reader.weights("x").directory == "best/step-00000003.000002"
    assert reader.place("x", "best") == "runs/x/best on the claim disk"


@pytest.mark.parametrize("said", [b"", b"Traceback", b'{"schema": "other/v1"}', b"[]"])
def test_an_image_that_answers_otherwise_is_named(reader, monkeypatch, said):
    monkeypatch.setattr(reader, "_exec", lambda command: (chunk for chunk in [said]))
    with pytest.raises(JobctlError, match="worker:1"):
        reader.exists("x")


def test_the_pod_is_restricted_has_no_token_an_end_and_reads_only():
    pod_spec = {"tolerations": [{"key": "nvidia.com/gpu"}], "nodeSelector": {"gpu": "a100"}}
    manifest = PodReader(FakeApi(), "disk", "worker:1", pod_spec).manifest
    spec = manifest["spec"]
    (container,) = spec["containers"]
    assert manifest["metadata"]["labels"]["app.kubernetes.io/name"] != "jobctl"  # no job is made of it
    assert (spec["automountServiceAccountToken"], spec["activeDeadlineSeconds"] > 0) == (False, True)
    assert spec["volumes"] == [
        {"name": "shared", "persistentVolumeClaim": {"claimName": "disk", "readOnly": True}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}},  # a picture is drawn there
    ]
    assert container["volumeMounts"] == [
        {"name": "shared", "mountPath": "/shared", "readOnly": True},
        {"name": "tmp", "mountPath": container["env"][1]["value"]},
    ]
    assert (spec["tolerations"], "nodeSelector" in spec) == (pod_spec["tolerations"], False)


OUTCOMES = {
    b'{"status": "Success"}': 0,
    b'{"status": "Failure", "details": {"causes": [{"reason": "ExitCode", "message": "64"}]}}': 64,
    b'{"status": "Failure", "message": "no such container"}': 1,
    b"": 1,
}


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_exec_s_exit_code_is_in_its_last_message(outcome):
    assert exit_code_of(outcome) == OUTCOMES[outcome]
