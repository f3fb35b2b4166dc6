"""A namespace of a real cluster behind the interface that the statements of batch/v1 are written against."""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from pathlib import Path
from typing import Any

from waiting import wait_for

from jobctl.backend import Record
from jobctl.cluster.backend import KubernetesBackend
from jobctl.errors import NotFoundError

base: Any = sys.modules["conformance_base"]  # the conftest has loaded it
Dict = dict[str, Any]
NUMBERS = itertools.count(1)
AT_ONCE = 10  # tests that run at the same time: most of them only wait for the Job controller
RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}


class KubernetesCluster(base.Cluster):
    """Jobs of one test, which has a directory of its own on the namespace's volume."""

    backoff_scale = 1.0
    poll_seconds = 0.4
    clock_seconds = 1.0  # the end of a pod is noted in whole seconds, and the back-off counted from there
    patience = 8  # images, schedulers, kubelets, a back-off of 10 s and more
    keeps_logs_of_removed_pods = False  # the workers' own logs lie on the volume

    def __init__(self, script: Any, namespace: str, image: str) -> None:
        self.script, self.namespace, self.image = script, namespace, image
        self.names: list[str] = []
        self.directory = f"test-{next(NUMBERS)}"

    def open(self) -> None:
        """Called in the thread that uses it: a client belongs to one."""
        self.backend = KubernetesBackend(self.script.CONTEXT, self.namespace)
        owner, path = str(self.script.OWNER), f"{self.script.SHARED}/{self.namespace}/{self.directory}"
        self.script.in_node("install", "-d", "-o", owner, "-g", owner, path)

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.script.kubectl("--namespace", self.namespace, *arguments, stdin=stdin)

    # ---- what the statements use

    def submit(self, name: str, job: Dict, *others: Dict, revision: int = 1) -> None:
        """As Helm does it: the new objects first, then the old revision's Job goes."""
        if name not in self.names:
            self.names.append(name)
        items = [*others, self._dressed(name, job, revision)]
        self.kubectl("create", "--filename=-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
        if revision > 1:
            self.kubectl("delete", "job", f"{name}-r{revision - 1}", "--wait=false")

    def record(self, name: str) -> Record:
        return self._settled(super().record(name))

    def evict(self, name: str, index: int) -> None:
        """By the eviction API, as `kubectl drain` does. A pod's first line may come before its kubelet reports it."""
        pod = self._running_pod(name, index)
        body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": self.namespace}}
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/eviction"
        self.kubectl("create", "--raw", path, "--filename=-", stdin=json.dumps(body))

    def volume(self, claim: str) -> Path:
        assert claim == "shared"
        return self.script.volume_directory(self.namespace) / self.directory

    def alive(self) -> list[str]:
        """Pods of this test whose processes may still run."""
        pods = [pod for name in self.names for pod in self._pods(name)]
        return [pod["metadata"]["name"] for pod in pods if pod["status"]["phase"] in ("Pending", "Running")]

    def close(self) -> None:
        """Nobody waits for the pods: they go with the namespace at the latest."""
        for name in self.names:
            with contextlib.suppress(NotFoundError):
                self.backend.delete(name)

    # ---- how it is done

    def _pods(self, name: str) -> list[Dict]:
        selector = f"--selector=app.kubernetes.io/instance={name}"
        return json.loads(self.kubectl("get", "pods", selector, "--output=json"))["items"]

    def _running_pod(self, name: str, index: int) -> str:
        label = "batch.kubernetes.io/job-completion-index"

        def running() -> str | None:
            for pod in self._pods(name):
                if pod["status"]["phase"] == "Running" and pod["metadata"]["labels"][label] == str(index):
                    return pod["metadata"]["name"]
            return None

        return wait_for(f"a pod of {name} with index {index} runs", running, 60, every_seconds=self.poll_seconds)

    def _settled(self, record: Record) -> Record:
        """The API server leaves out what is zero or empty; the statements name it."""
        zero = {"active": 0, "ready": 0, "terminating": 0, "succeeded": 0, "failed": 0, "completedIndexes": ""}
        spec = record.job["spec"]
        empty = {"failedIndexes": ""} if "backoffLimitPerIndex" in spec else {}
        record.job["status"] = {**zero, **empty, "conditions": [], **record.job.get("status", {})}
        return record

    def _dressed(self, name: str, job: Dict, revision: int) -> Dict:
        """With the labels by which jobctl finds its jobs, fit for Pod Security `restricted`."""
        job = json.loads(json.dumps(job))
        labels = {"app.kubernetes.io/name": "jobctl", "app.kubernetes.io/instance": name, "jobctl.dev/kind": "train"}
        job["metadata"].update(name=f"{name}-r{revision}", labels=labels)
        template = job["spec"]["template"]
        metadata = template.setdefault("metadata", {})
        metadata["labels"] = {**metadata.get("labels", {}), **labels}
        pod = template["spec"]
        pod.update(securityContext=RESTRICTED, automountServiceAccountToken=False)
        for container in pod["containers"]:
            container["image"] = self.image
            container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
            for mount in container.get("volumeMounts", []):
                if mount["name"] == "shared":
                    mount["subPath"] = self.directory
        return job
