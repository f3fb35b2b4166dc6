"""The Pod Security level restricted, no token, nothing changed in place."""

from __future__ import annotations

import pytest

CASES = {
    "collect": {"kind": "collect", "replicas": 2},
    "group": {"kind": "train", "replicas": 2, "gpu": "a100"},
    "eval": {"kind": "eval", "from": "r"},
    "own user": {"kind": "train", "pod": {"runAsUser": 2000, "fsGroup": 3000}},
}
# Volume types that the level restricted allows, of those that the chart has a use for.
ALLOWED_VOLUMES = {"configMap", "emptyDir", "persistentVolumeClaim"}


@pytest.fixture(params=CASES)
def objects(request, render):
    return render(CASES[request.param])


@pytest.fixture
def pod(objects, pick):
    return pick(objects, "Job")["spec"]["template"]["spec"]


def test_pods_run_without_root_and_without_privileges(pod):
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert [container["securityContext"] for container in pod["containers"]] == [
        {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    ]
    assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "initContainers", "ephemeralContainers"} & set(pod)


def test_only_harmless_volumes_are_mounted(pod):
    types = {key for volume in pod["volumes"] for key in volume if key != "name"}
    assert types == ALLOWED_VOLUMES
    assert all("hostPort" not in port for port in pod["containers"][0]["ports"])


def test_no_pod_gets_a_token_or_the_addresses_of_services(objects, pod, pick):
    assert pick(objects, "ServiceAccount")["automountServiceAccountToken"] is False
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    assert pod["serviceAccountName"] == "x"


def test_secrets_are_named_and_never_rendered(objects):
    assert {document["kind"] for document in objects} <= {"ServiceAccount", "ConfigMap", "Service", "Job"}


def test_the_config_cannot_be_changed_in_place(objects, pick):
    assert pick(objects, "ConfigMap")["immutable"] is True


def test_a_network_policy_is_made_where_it_is_asked_for_and_lets_in_the_releases_own_pods(render, pick):
    group = {"kind": "train", "replicas": 2, "gpu": "a100", "gpusPerReplica": 2}
    own = {"podSelector": {"matchLabels": pick(render(group), "Service")["spec"]["selector"]}}
    assert pick(render(group | {"networkPolicy": True}), "NetworkPolicy")["spec"] == {
        **own,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [own]}, {"ports": [{"port": 9400}, {"port": 9401}]}],
    }
    assert render(group | {"networkPolicy": False}) == render(group)
    assert "NetworkPolicy" not in {document["kind"] for document in render(group)}


def test_a_new_revision_edits_no_field_that_cannot_be_edited(render):
    """Helm upgrades objects of one name in place: those must differ in nothing but labels and annotations."""
    before = {"kind": "train", "replicas": 2}
    after = {"kind": "train", "replicas": 3, "gpu": "a100", "settings": {"lr": 0.5}, "planned": {"revision": 2}}

    def by_name(values):
        return {(document["kind"], document["metadata"]["name"]): document for document in render(values)}

    old, new = by_name(before), by_name(after)
    kept = old.keys() & new.keys()
    assert {kind for kind, _ in kept} == {"ServiceAccount", "Service"}
    for key in kept:
        assert {**old[key], "metadata": None} == {**new[key], "metadata": None}
    assert {name for _, name in old.keys() - kept} == {"x-r1"}
    assert {name for _, name in new.keys() - kept} == {"x-r2"}
