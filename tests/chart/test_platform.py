"""The claim that jobs share."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from jobctl import helm

CHART = Path(__file__).resolve().parents[2] / "charts" / "jobctl-platform"


def claim(**values):
    objects = helm.template("platform", {"claim": values}, chart=CHART)
    (document,) = (document for document in objects if document["kind"] == "PersistentVolumeClaim")
    return document


def test_it_is_one_claim_that_helm_keeps_on_uninstall(schema_errors):
    document = claim()
    assert document["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert document["metadata"]["name"] == "shared"
    assert document["spec"] == {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "100Gi"}}}
    assert schema_errors(document) == []


def test_its_name_is_the_one_that_jobs_mount_by_default():
    values = yaml.safe_load((CHART.parent / "jobctl" / "values.yaml").read_text())
    assert claim()["metadata"]["name"] == values["volume"]["claim"]


def test_no_annotation_can_take_the_keeping_away():
    document = claim(annotations={"helm.sh/resource-policy": "delete", "driver": "fast"})
    assert document["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep", "driver": "fast"}


def test_it_binds_to_an_existing_volume():
    spec = claim(storageClass="", volumeName="disk-1", accessMode="ReadWriteOnce", size="5Gi")["spec"]
    assert spec == {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": "",
        "volumeName": "disk-1",
        "resources": {"requests": {"storage": "5Gi"}},
    }


def test_nothing_is_made_where_a_claim_is_there_already():
    objects = helm.template("platform", {"claim": {"create": False}}, chart=CHART)
    assert "PersistentVolumeClaim" not in [document["kind"] for document in objects]


@pytest.mark.parametrize("values", [{"sise": "1Gi"}, {"accessMode": "RWX"}, {"size": "large"}])
def test_bad_values_are_refused(values):
    with pytest.raises(helm.UsageError, match="claim"):
        claim(**values)


def test_text_is_text_in_whatever_it_is_put():
    nasty = "x\x85kind: ClusterRoleBinding\n---\n"
    values = {
        "claim": {"annotations": {"a": nasty}},
        "rbac": {"create": True, "clusterRole": True, "subjects": [{"kind": "User", "name": nasty}]},
        "dashboards": {"enabled": True, "labels": {"a": "1e3"}, "annotations": {"yes": nasty}},
    }
    objects = helm.template("123", values, chart=CHART, namespace="1e3")
    kinds = ["ConfigMap", "PersistentVolumeClaim", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]
    assert [document["kind"] for document in objects] == kinds
    assert {document["metadata"].get("namespace", "1e3") for document in objects} == {"1e3"}
    assert objects[1]["metadata"]["annotations"]["a"] == objects[0]["metadata"]["annotations"]["yes"] == nasty
    assert [document["subjects"] for document in objects if "subjects" in document] == [
        [values["rbac"]["subjects"][0]]
    ] * 2
