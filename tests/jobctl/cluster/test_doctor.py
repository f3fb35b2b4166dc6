"""What doctor says of a cluster: what is there, what is not, and a command that can be typed as it stands."""

import re
from pathlib import Path
from typing import Any

import pytest

from jobctl.cluster.doctor import Finding, examine
from jobctl.cluster.refusals import ForbiddenError, Place
from jobctl.errors import NotFoundError

IMAGE = "registry/jobctl-worker:1"
A100 = "NVIDIA-A100-SXM4-80GB"


def node(name: str, *, product: str = "", gpus: int = 0, fake: bool = False, taint: str = "", image: str = "") -> dict:
    return {
        "metadata": {
            "name": name,
            "labels": {"nvidia.com/gpu.product": product} if product else {},
            "annotations": {"jobctl.dev/fake-gpu": "true"} if fake else {},
        },
        "spec": {"taints": [{"key": taint, "effect": "NoSchedule"}]} if taint else {},
        "status": {
            "conditions": [{"type": "Ready", "status": "True"}],
            "allocatable": {"nvidia.com/gpu": str(gpus)} if gpus else {},
            "images": [{"names": [image]}] if image else [],
        },
    }


class FakeApi:
    """A cluster where everything is as it should be, but for what a test says."""

    place = Place("https://10.0.0.1:6443", "prod", "team")

    def __init__(self, nodes: list[dict] | Exception, claim: dict | Exception | None = None, level: str = "restricted"):
        self.nodes, self.level = nodes, level
        self.claim = claim or {
            "spec": {"accessModes": ["ReadWriteMany"]},
            "status": {"phase": "Bound", "accessModes": ["ReadWriteMany"], "capacity": {"storage": "1Ti"}},
        }

    def version(self) -> dict:
        return {"gitVersion": "v1.36.3", "major": "1", "minor": "36"}

    def groups(self) -> set[str]:
        return {"monitoring.coreos.com"}

    def create(self, plural: str, body: dict) -> dict:
        return {"status": {"allowed": True}}

    def get(self, plural: str, name: str) -> dict:
        found: Any = {
            "namespaces": {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": self.level}}},
            "persistentvolumeclaims": self.claim,
        }[plural]
        if isinstance(found, Exception):
            raise found
        return found

    def find(self, plural: str) -> list[dict]:
        if isinstance(self.nodes, Exception):
            raise self.nodes
        return self.nodes


def findings(api: FakeApi) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(api, "shared", IMAGE)}


def test_a_cluster_that_has_everything_gets_no_advice():
    made = node("a", product=A100, gpus=8, image=IMAGE)
    found = findings(FakeApi([made, node("b", product="NVIDIA-A10G", gpus=1), node("control", taint="control-plane")]))
    assert {(one.level, one.advice) for one in found.values()} == {("ok", None)}
    assert found["profile a100"].said == f"1 node ({A100}) with 8 GPUs"
    assert found["profile cpu"].said == "2 nodes"
    assert found["image"].said == f"{IMAGE} is on 1 of 2 nodes that take jobs, as far as nodes tell"


def test_gpus_that_are_only_advertised_are_called_so():
    found = findings(FakeApi([node("a", product=A100, gpus=8, fake=True)]))["profile a100"]
    assert (found.level, found.said) == ("ok", f"1 node ({A100}) with 8 fake GPUs")
    assert found.advice == "no device is behind them: submit with --allow-cpu"


def test_a_missing_claim_comes_with_the_command_that_makes_it():
    found = findings(FakeApi([node("a")], claim=NotFoundError("no")))["claim"]
    assert (found.level, found.said) == ("fail", "there is no claim shared in namespace team")
    chart = re.match(
        r"helm upgrade --install platform (\S+) -n team, or name yours: --claim, volume\.claim", found.advice
    )
    assert (Path(chart[1]) / "Chart.yaml").is_file()


CLAIMS = {
    "of one node": (["ReadWriteOnce"], "Bound", "jobs of several replicas on several nodes need ReadWriteMany"),
    "without a volume": (["ReadWriteMany"], "Pending", "kubectl -n team describe pvc shared says what it waits for"),
    "that lost its volume": (["ReadWriteMany"], "Lost", "its volume is gone: make another claim"),
}


@pytest.mark.parametrize("case", CLAIMS)
def test_a_claim(case):
    modes, phase, advice = CLAIMS[case]
    claim = {"spec": {"accessModes": modes}, "status": {"phase": phase}}
    found = findings(FakeApi([node("a")], claim=claim))["claim"]
    assert (found.level != "ok", found.advice) == (True, advice)


def test_a_namespace_of_a_laxer_level_is_a_warning_as_jobs_fit_the_strictest():
    found = findings(FakeApi([node("a")], level="baseline"))["namespace"]
    assert (found.level, found.said) == ("warn", "team has Pod Security level baseline")
    assert found.advice.endswith("kubectl label namespace team pod-security.kubernetes.io/enforce=restricted")


def test_nodes_that_may_not_be_seen_are_not_guessed_at():
    found = findings(FakeApi(ForbiddenError("no")))
    assert (found["nodes"].level, found["nodes"].said) == ("warn", "the nodes are not visible")
    assert not any(check.startswith("profile") for check in found)


def test_without_a_node_that_takes_jobs_nothing_can_run():
    found = findings(FakeApi([node("a", taint="control-plane")]))
    assert (found["profile cpu"].level, found["image"].level) == ("fail", "warn")
    assert found["profile a100"].said == (
        "no node is labelled nvidia.com/gpu.product=NVIDIA-A100-SXM4-40GB or NVIDIA-A100-SXM4-80GB or "
        "NVIDIA-A100-PCIE-40GB or NVIDIA-A100-80GB-PCIe"
    )
