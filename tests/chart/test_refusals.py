"""What plain Helm refuses, and how clearly. jobctl says the same before it calls Helm: tests/jobctl/test_spec.py."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobctl import helm
from jobctl.errors import UsageError

CHART = Path(__file__).resolve().parents[2] / "charts" / "jobctl"
REFUSED = [
    ([], "kind is missing: collect, train or eval"),
    (["kind=tain"], "kind: value must be one of 'collect', 'train', 'eval'"),
    (["kind=train", "gpu=h100"], 'gpu: there is no profile "h100" (known: a100, a10g, ampere, cpu)'),
    (["kind=train", "task=detecter"], "task: value must be 'predictor'"),
    (["kind=train", "replicas=0"], "replicas: minimum: got 0, want 1"),
    (["kind=train", "replicas=two"], "replicas: 'two' does not match pattern"),
    (["kind=train", "replica=2"], "additional properties 'replica' not allowed"),
    (["kind=train", "settings.stepz=2"], "settings: additional properties 'stepz' not allowed"),
    (["kind=train", "settings.lr=much"], "settings.lr: 'much' does not match pattern"),
    (["kind=train", "settings.lr=10.5"], "settings.lr is 10.5: it must be at most 10"),
    (["kind=train", "settings.lr=0.0"], "settings.lr is 0: it must be more than 0"),
    (["kind=train", "settings.steps=0"], "settings.steps: minimum: got 0, want 1"),
    (["kind=train", "checkpoint.every=2"], "checkpoint: additional properties 'every' not allowed"),
    (["kind=train", "data=/shared/datasets/d"], "data: '/shared/datasets/d' does not match pattern"),
    (["kind=train", "data=../d"], "data: '../d' does not match pattern"),
    (["kind=train", "gates.f1=0.6"], "gates have no meaning for train"),
    (["kind=eval"], "from is missing: eval judges the weights of a run"),
    (["kind=collect", "from=r"], "from has no meaning for collect"),
    (["kind=train", "env.A=x", "secretEnv.A.secret=s", "secretEnv.A.key=k"], "A stands in both env and secretEnv"),
    (["kind=train", "env.A=5"], "env.A is 5, which is no text: put it in quotes in a file, or say --set-string"),
    (["kind=train", "env.A=true"], "env.A is true, which is no text"),
    (["kind=train", "pod.labels.a=5"], "pod.labels.a is 5, which is no text"),
    (["kind=train", "pod.annotations.a=5"], "pod.annotations.a is 5, which is no text"),
    (["kind=train", "scheduling.nodeSelector.a=5"], "scheduling.nodeSelector.a is 5, which is no text"),
    (["kind=train", "scheduling.tolerations[0].value=5"], "scheduling.tolerations.0.value is 5, which is no text"),
    (["kind=train", "env.JOBCTL_VOLUME=x"], "env.JOBCTL_VOLUME can't be set: it tells a pod its place"),
    (["kind=train", "secretEnv.JOBCTL_STORE.secret=s", "secretEnv.JOBCTL_STORE.key=k"], "JOBCTL_STORE can't be set"),
    (["kind=train", "env.JOB_COMPLETION_INDEX=x"], "env.JOB_COMPLETION_INDEX can't be set"),
    (["kind=train", "pod.labels.a=x y"], "pod.labels.a: 'x y' does not match pattern"),
    (["kind=train", "image=x y"], "image: 'x y' does not match pattern"),
    (["kind=collect", "data=runs/other"], 'data is "runs/other": collect writes below datasets/ only'),
    (["kind=collect", "data=datasets"], 'data is "datasets": collect writes below datasets/ only'),
    (["kind=train", "pod.runAsUser=0"], "pod.runAsUser: minimum: got 0, want 1"),
    (["kind=train", "resources.requests.cpu=lots"], "resources.requests.cpu: 'lots' does not match pattern"),
    (["kind=train", "planned.expectRevision=2"], "planned.expectRevision is 2, but this is revision 1 of x"),
    (["kind=train", "planned.jobctlVersion=0.2.0"], "jobctl is 0.2.0 but the chart is 0.1.0: install the jobctl"),
]


def complaint(run_helm, *arguments):
    done = run_helm("template", *arguments)
    assert done.returncode != 0, done.stdout[:300]
    return str(helm.error_of(done.stderr))


@pytest.mark.parametrize(
    ("assignments", "sentence"), REFUSED, ids=lambda value: ",".join(value) if isinstance(value, list) else ""
)
def test_bad_values_are_refused_with_one_clear_sentence(run_helm, assignments, sentence):
    sets = [part for assignment in assignments for part in ("--set", assignment)]
    said = complaint(run_helm, "x", str(CHART), *sets)
    assert sentence in said
    assert "\n" not in said
    assert "templates/" not in said


@pytest.mark.parametrize(
    ("assignment", "sentence"),
    [
        ("replicas=0", "replicas is 0: it must be at least 1"),
        ("replicas=-1", "replicas is -1: it must be at least 1"),
        ("pod.runAsUser=0", "pod.runAsUser is 0: it must be at least 1"),
    ],
)
def test_a_number_as_text_is_held_to_the_same_bounds(run_helm, assignment, sentence):
    assert sentence in complaint(run_helm, "x", str(CHART), "--set", "kind=train", "--set-string", assignment)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("x" * 131_071, "env.A has 131071 bytes"),
        ("\0", "env.A holds U+0000"),
        (7.13e55, "env.A is 7.13e+55, which is no"),
    ],
)
def test_a_text_that_no_process_can_have_is_refused(value, sentence):
    with pytest.raises(UsageError, match=re.escape(sentence)):
        helm.template("x", {"kind": "train", "env": {"A": value}})


def test_documented_knobs_can_be_set(helm_template, pick):
    sets = ("env.JOBCTL_LEASE_SECONDS=x", "env.JOBCTL_TEST_FAULT=x", "env.PYTHONPATH=x", "env.LD_PRELOAD=x")
    names = [
        entry["name"]
        for entry in pick(helm_template("kind=train", *sets), "Job")["spec"]["template"]["spec"]["containers"][0]["env"]
    ]
    assert names[-4:] == ["JOBCTL_LEASE_SECONDS", "JOBCTL_TEST_FAULT", "LD_PRELOAD", "PYTHONPATH"]


def test_the_longest_name_is_one_that_fits_into_a_pods_name(helm_template, pick, run_helm):
    job = pick(helm_template("kind=train", "replicas=10000", "planned.revision=9999", name="a" * 50), "Job")
    assert len(f"{job['metadata']['name']}-9999") <= 63
    said = complaint(run_helm, "a" * 51, str(CHART), "--set", "kind=train")
    assert "has 51 characters: at most 50" in said


@pytest.mark.parametrize("name", ["a.b", "1x"])
def test_a_name_that_pods_or_services_cannot_bear_is_refused(run_helm, name):
    said = complaint(run_helm, name, str(CHART), "--set", "kind=train", "--set", "replicas=2")
    assert "is no DNS label" in said or "begins with a digit" in said


def test_a_name_that_begins_with_a_digit_is_fine_without_a_service(helm_template):
    assert helm_template("kind=train", name="1x")


def test_an_older_kubernetes_is_refused(run_helm):
    said = complaint(run_helm, "x", str(CHART), "--set", "kind=train", "--kube-version", "1.33.5")
    assert said == "Kubernetes is v1.33.5, and the chart needs >=1.34.0-0."


@pytest.mark.parametrize("version", ["1.34.0", "1.36.3", "1.34.2-gke.100"])
def test_a_supported_kubernetes_is_not(helm_template, version):
    assert helm_template("kind=train", flags=("--kube-version", version))


def test_another_patch_of_jobctl_is_accepted(render):
    assert render({"kind": "train", "planned": {"jobctlVersion": "0.1.7"}})
