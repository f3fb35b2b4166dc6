"""What can happen to a node of the kind cluster. Each of these leaves it as it was, whatever happens in between."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from runs import Dict

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
READY_SECONDS = 120
# What a Node object has that only its first registration gives, beside what the kubelet writes into it again.
KEPT = {"metadata": ("name", "labels", "annotations"), "spec": ("podCIDR", "podCIDRs", "providerID")}


def docker(*arguments: str) -> str:
    return subprocess.run(("docker", *arguments), capture_output=True, text=True, timeout=60, check=True).stdout


def is_ready(cluster: Any, node: str) -> bool:
    conditions = cluster.get("node", node)["status"].get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


@contextmanager
def welcoming(cluster: Any, key: str, node: str) -> Iterator[Any]:
    """For the time being only `node` has the label `key`=here; the function given lets another one have it too."""
    labelled = []

    def label(name: str) -> None:
        labelled.append(name)
        cluster.kubectl("label", "node", name, f"{key}=here", "--overwrite")

    label(node)
    try:
        yield label
    finally:
        for name in labelled:
            cluster.kubectl("label", "node", name, f"{key}-")


@contextmanager
def drained(cluster: Any, node: str, pods: str) -> Iterator[None]:
    """No pod may come to `node`, and those that the selector `pods` names have been evicted from it."""
    try:
        cluster.kubectl("drain", node, f"--pod-selector={pods}", "--delete-emptydir-data", "--ignore-daemonsets")
        yield
    finally:
        cluster.kubectl("uncordon", node)


@contextmanager
def paused(namespace: Any, node: str) -> Iterator[None]:
    """All processes of the node stand still, as in a partition: what it wrote stays, nobody hears of it."""
    cluster = namespace.cluster
    found = cluster.get("node", node)
    docker("pause", node)
    try:
        yield
    finally:
        if not _exists(cluster, node):
            _register_again(cluster, found)
        docker("unpause", node)
        cluster.kubectl("taint", "node", node, f"{OUT_OF_SERVICE.split('=')[0]}-") if _is_out(cluster, node) else None
        namespace.wait_for(f"{node} is ready again", lambda: is_ready(cluster, node), READY_SECONDS)
        _advertise(cluster, found)


def _exists(cluster: Any, node: str) -> bool:
    return any(found["metadata"]["name"] == node for found in cluster.get("nodes")["items"])


def _is_out(cluster: Any, node: str) -> bool:
    return any(OUT_OF_SERVICE.startswith(taint["key"]) for taint in cluster.get("node", node)["spec"].get("taints", []))


def _register_again(cluster: Any, found: Dict) -> None:
    """As its kubelet would when it starts again, with the pod addresses that the node's network is set up for."""
    kept = {part: {key: found[part][key] for key in keys if key in found[part]} for part, keys in KEPT.items()}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "Node", **kept}))


def _advertise(cluster: Any, found: Dict) -> None:
    """The GPUs that it had: `make cluster` counts them, and no kubelet does."""
    gpus = {"nvidia.com/gpu": found["status"]["capacity"]["nvidia.com/gpu"]}
    patch = json.dumps({"status": {"capacity": gpus, "allocatable": gpus}})
    cluster.kubectl("patch", "node", found["metadata"]["name"], "--subresource=status", "--type=merge", f"-p={patch}")
