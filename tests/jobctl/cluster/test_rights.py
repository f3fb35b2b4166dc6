"""The documented Role: one list of rules for the chart, the docs and doctor."""

from pathlib import Path

import pytest

from jobctl import helm
from jobctl.chart import chart_directory
from jobctl.cluster.doctor import fits
from jobctl.cluster.rights import Right, document, needed, rules
from jobctl.profiles import load_all

ROOT = Path(__file__).resolve().parents[3]


def test_the_docs_print_the_role_as_it_is():
    assert (ROOT / "docs" / "rbac.md").read_text() == document(), "make generate"


def test_the_platform_chart_makes_the_same_role_and_only_when_asked():
    chart = chart_directory("jobctl-platform")
    kinds = {one["kind"] for one in helm.template("platform", {}, chart=chart)}
    assert not any("Role" in kind for kind in kinds)
    subject = {"kind": "Group", "name": "researchers"}
    values = {"rbac": {"create": True, "clusterRole": True, "subjects": [subject]}}
    made = {one["kind"]: one for one in helm.template("platform", values, chart=chart, namespace="team")}
    plain = [{key: rule[key] for key in ("apiGroups", "resources", "verbs")} for rule in rules()]
    assert made["Role"]["rules"] == plain
    assert made["ClusterRole"]["metadata"]["name"] == "jobctl-team-platform-users"
    values["rbac"]["kueue"] = True
    made |= {one["kind"]: one for one in helm.template("platform", values, chart=chart, namespace="team")}
    queued = [{key: rule[key] for key in ("apiGroups", "resources", "verbs")} for rule in rules("kueue")]
    assert made["Role"]["rules"] == plain + queued
    for kind in ("Role", "ClusterRole"):
        binding = made[f"{kind}Binding"]
        assert (binding["roleRef"]["kind"], binding["roleRef"]["name"]) == (kind, made[kind]["metadata"]["name"])
        assert binding["subjects"] == [subject]


def test_rights_are_named_as_kubectl_names_them():
    assert [str(right) for right in (Right("list", "batch", "jobs"), Right("get", "", "pods", "log"))] == [
        "list jobs.batch",
        "get pods/log",
    ]
    assert Right("get", "", "pods", "log") in needed()


def node(labels: dict | None = None, taints: tuple = (), **spec: object) -> dict:
    return {"metadata": {"labels": labels or {}}, "spec": {"taints": list(taints), **spec}}


A100 = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}
CASES = {
    "a plain node": (node(), {"cpu"}),
    "an A100's": (node(A100), {"cpu", "a100", "ampere"}),
    "one reserved for GPU jobs": (node(A100, ({"key": "nvidia.com/gpu", "effect": "NoSchedule"},)), {"a100", "ampere"}),
    "one that is only shunned": (node(taints=({"key": "k", "effect": "PreferNoSchedule"},)), {"cpu"}),
    "a control plane": (node(taints=({"key": "control-plane", "effect": "NoSchedule"},)), set()),
    "one that is cordoned": (node(A100, unschedulable=True), set()),
}


@pytest.mark.parametrize("case", CASES)
def test_profiles_fit_on(case):
    made, expected = CASES[case]
    assert {profile.name for profile in load_all() if fits(profile, made)} == expected
