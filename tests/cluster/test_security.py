"""The rules that docs/security.md proposes: ordinary jobs pass, and a job that asks for more is refused at submit."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from people import Said, Team, eventually, refused, tidily, typist

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text(encoding="utf-8")
TINY = ("submit", "collect", "--set=episodes=1", "--set=maxSteps=20")
POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
ASKS_FOR_MORE = {
    "a priority": ("--set=scheduling.priority=system-cluster-critical", "priority classes of this namespace are"),
    "a taint": ("--set=scheduling.tolerations=[{operator: Exists}]", "tolerate the taints"),
    "a claim": ("--set=volume.claim=other", "mount the claim shared"),
}


@pytest.fixture(scope="module")
def team(make_namespace: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    namespace = make_namespace("rules")
    team = Team.of(namespace, tmp_path_factory.mktemp("kube"))
    blocks = "---\n".join(re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL))
    rules = [one for one in yaml.safe_load_all(blocks) if one.get("kind") in POLICIES]
    for rule in rules:
        rule["metadata"]["name"] = f"jobctl-pods-{namespace.name}"
    policy, binding = rules
    binding["spec"]["policyName"] = policy["metadata"]["name"]
    binding["spec"]["matchResources"]["namespaceSelector"]["matchLabels"] = {
        "kubernetes.io/metadata.name": namespace.name
    }
    try:
        namespace.cluster.apply(policy, binding)
        yield team
    finally:
        for rule in rules:
            namespace.cluster.kubectl("delete", rule["kind"].lower(), rule["metadata"]["name"], "--ignore-not-found")


@pytest.fixture
def jobctl(
    team: Team, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., Said]]:
    yield from tidily(team, typist(team, monkeypatch, capfd))


@pytest.fixture(params=ASKS_FOR_MORE)
def more(request: pytest.FixtureRequest, team: Team) -> tuple[str, str]:
    if request.param == "a claim":  # it has to be there, or jobctl says that it is not
        there = team.namespace.get("pvc", "shared")["spec"]
        claim = {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "other", "namespace": team.namespace.name},
            "spec": {key: there[key] for key in ("accessModes", "resources", "storageClassName") if key in there},
        }
        team.namespace.cluster.apply(claim)
    return ASKS_FOR_MORE[request.param]


def test_a_job_that_asks_for_more_than_the_rules_allow_is_refused_at_submit(jobctl, more):
    flag, sentence = more

    def is_refused() -> bool:
        """A new policy takes seconds to hold."""
        if jobctl(*TINY, "--name", "x", flag).status == 5:
            return True
        jobctl("delete", "x")
        return False

    eventually(is_refused)
    refused(jobctl(*TINY, "--name", "x", flag), sentence)


@pytest.mark.parametrize("host_users", ["null", "false"])
def test_an_ordinary_job_passes_also_with_users_of_its_own(jobctl, host_users):
    assert jobctl(*TINY, "--name", "plain", f"--set=pod.hostUsers={host_users}").status == 0
    assert jobctl("delete", "plain").status == 0


def test_the_reader_of_the_volume_passes(jobctl):
    assert jobctl("results", "nobody").status == 3
