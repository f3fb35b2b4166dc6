"""Finding Helm, and what is made of its complaints."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest

from jobctl import helm
from jobctl.errors import JobctlError, UsageError


def program(path: Path, text: str = "#!/bin/sh\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def places(tmp_path, monkeypatch):
    """One Helm in each of the three places."""
    beside = program(tmp_path / "venv" / "bin" / "helm")
    monkeypatch.setattr(sys, "executable", str(beside.parent / "python"))
    return program(tmp_path / "named"), program(tmp_path / "path" / "helm"), beside


def test_the_named_helm_is_used_before_the_one_on_path_before_the_one_beside_python(places, tmp_path):
    named, on_path, beside = places
    assert helm.find_helm({"JOBCTL_HELM": str(named), "PATH": str(on_path.parent)}) == named
    assert helm.find_helm({"PATH": str(on_path.parent)}) == on_path
    assert helm.find_helm({"PATH": str(tmp_path / "empty")}) == beside


def test_a_named_helm_that_is_none_is_an_error_and_not_passed_over(places, tmp_path):
    with pytest.raises(JobctlError, match=r"JOBCTL_HELM names .* which is no program"):
        helm.find_helm({"JOBCTL_HELM": str(tmp_path / "gone"), "PATH": os.environ["PATH"]})


def test_a_missing_helm_is_an_error_that_says_where_it_may_lie(places, tmp_path):
    places[2].unlink()
    with pytest.raises(JobctlError, match=r"neither on PATH nor at .*: run `make setup`, or set JOBCTL_HELM"):
        helm.find_helm({"PATH": str(tmp_path / "empty")})


def test_a_helm_that_cannot_be_started_is_named(tmp_path, monkeypatch):
    broken = program(tmp_path / "helm", "#!/nonexistent\n")
    monkeypatch.setenv("JOBCTL_HELM", str(broken))
    with pytest.raises(JobctlError, match=f"Helm .{broken}. can't be started"):
        helm.template("x", {"kind": "train"})


def helm_that_says(path: Path, version: str) -> Path:
    complain = "echo 'Error: no flag' >&2; exit 1"
    return program(path, f'#!/bin/sh\ncase "$1" in version) echo "{version}";; *) {complain};; esac\n')


@pytest.mark.parametrize("version", ["v3.18.0", "v3.19.2+g1", "v4.0.0-rc.1", "v4.3.1"])
def test_a_helm_that_is_new_enough_is_told_by_its_version(tmp_path, version):
    assert helm.check_version(helm_that_says(tmp_path / "helm", version)) == version


@pytest.mark.parametrize(
    ("version", "sentence"),
    [("v3.17.4", r"is v3\.17\.4, and jobctl needs 3\.18 or newer"), ("v2.16.0", "needs 3.18"), ("hello", "is no Helm")],
)
def test_a_helm_that_is_too_old_is_named_as_that_whatever_it_complains_of(tmp_path, monkeypatch, version, sentence):
    monkeypatch.setenv("JOBCTL_HELM", str(helm_that_says(tmp_path / "helm", version)))
    with pytest.raises(JobctlError, match=sentence):
        helm.template("x", {"kind": "train"})


def running() -> list[str]:
    """The Helms that this test has started and that have not ended."""
    children = Path("/proc/thread-self/children").read_text().split()
    return [pid for pid in children if "helm" in Path(f"/proc/{pid}/cmdline").read_text()]


def test_a_helm_started_ahead_renders_the_same_and_one_that_is_not_asked_leaves_no_process():
    values = {"kind": "train", "replicas": 2}
    with helm.Rendering("x") as rendering:
        rendering.start()
        assert rendering.of(values) == helm.template("x", values)
    with pytest.raises(UsageError, match="no"), helm.Rendering("x") as rendering:
        rendering.start()
        raise UsageError("no")
    assert running() == []


def test_a_helm_is_stopped_where_what_is_done_meanwhile_fails():
    def refuse() -> None:
        raise UsageError("no")

    with pytest.raises(UsageError, match="no"):
        helm.run(["template", "x", ".", "--values", "-"], meanwhile=refuse)
    assert running() == []


def test_objects_come_in_the_order_in_which_helm_makes_them():
    kinds = [document["kind"] for document in helm.template("x", {"kind": "train", "replicas": 2})]
    assert kinds == ["ServiceAccount", "ConfigMap", "Service", "Job"]


def test_the_namespace_reaches_every_object():
    documents = helm.template("x", {"kind": "train", "replicas": 2}, namespace="team")
    assert {document["metadata"]["namespace"] for document in documents} == {"team"}


def test_what_the_chart_refuses_is_a_usage_error_of_one_sentence():
    with pytest.raises(UsageError) as caught:
        helm.template("x", {"kind": "train", "foo": 1, "settings": {"stepz": 1, "lr": "x"}})
    said = str(caught.value)
    assert "additional properties 'foo' not allowed" in said
    assert "settings: additional properties 'stepz' not allowed" in said
    assert "settings.lr: 'x' does not match" in said
    assert "\n" not in said


def test_an_unknown_complaint_is_passed_on_without_its_prefix():
    error = helm.error_of("level=INFO msg=noise\nError: something\n  else broke\n")
    assert (type(error), str(error)) == (helm.HelmError, "Helm failed: something else broke.")


def test_a_release_that_helm_could_not_record_is_an_error_though_helm_ends_with_0(tmp_path, monkeypatch):
    program = tmp_path / "helm"
    program.write_text('#!/bin/sh\necho \'level=ERROR msg="failed to record the release" error="no"\' >&2\n')
    program.chmod(0o755)
    monkeypatch.setenv("JOBCTL_HELM", str(program))
    with pytest.raises(helm.HelmError, match="could not be recorded") as caught:
        helm.run(["upgrade", "x"])
    assert 'error="no"' in caught.value.log


def test_an_older_kubernetes_is_a_usage_error():
    with pytest.raises(UsageError, match=r"Kubernetes is v1\.30\.0, and the chart needs >=1\.34"):
        helm.template("x", {"kind": "train"}, kube_version="1.30.0")


def test_values_cross_in_ascii_with_every_character_whole():
    text = helm.to_yaml({"a": '🚀\x85\x7f\u2028ä\n"\\ud83d', "n": 1e-4, "b": None})
    assert text == r'{"a": "\U0001F680\U00000085\U0000007F\U00002028\U000000E4\n\"\\ud83d", "n": 0.0001, "b": null}'
