"""v1 Pod objects, as far as a local pod has something to say."""

import random
import uuid
from dataclasses import dataclass
from typing import Any

from jobctl.local.environment import PodIdentity
from jobctl.local.plan import LocalJob
from jobctl.local.state import timestamp
from jobctl.objects import ATTEMPT_ANNOTATION, INDEX_LABEL, PID_ANNOTATION, phase_of
from jobctl.untrusted import text

_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"  # the letters that Kubernetes makes names from

Dict = dict[str, Any]


@dataclass(frozen=True)
class Owner:
    """The Job that a pod belongs to."""

    name: str
    uid: str
    node: str


def identity(job: LocalJob, owner: Owner, index: int, address: str) -> PodIdentity:
    """A new pod's name, uid, labels and annotations, as the Job controller gives them."""
    suffix = "".join(random.choices(_SUFFIX, k=5))  # noqa: S311 - a name, no secret
    own = {
        "batch.kubernetes.io/controller-uid": owner.uid,
        "batch.kubernetes.io/job-name": owner.name,
        "controller-uid": owner.uid,
        "job-name": owner.name,
        INDEX_LABEL: str(index),
    }
    return PodIdentity(
        name=f"{owner.name}-{index}-{suffix}",
        namespace=job.namespace,
        uid=str(uuid.uuid4()),
        ip=address,
        node=owner.node,
        index=index,
        labels={**job.template.labels, **own},
        annotations={**job.template.annotations, INDEX_LABEL: str(index)},
    )


def pending(pod: PodIdentity, owner: Owner, attempt: int) -> Dict:
    """`attempt`: its number among all pods of the job, which orders them whatever the clock does."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod.name,
            "namespace": pod.namespace,
            "uid": pod.uid,
            "labels": dict(pod.labels),
            "annotations": {**pod.annotations, ATTEMPT_ANNOTATION: str(attempt)},
            "creationTimestamp": timestamp(),
            "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": owner.name, "uid": owner.uid, "controller": True}
            ],
        },
        "spec": {"nodeName": pod.node},
        "status": {"phase": "Pending", "podIP": pod.ip, "conditions": [], "containerStatuses": []},
    }


def set_running(pod: Dict, container: str, pid: int) -> None:
    now = timestamp()
    pod["metadata"]["annotations"][PID_ANNOTATION] = str(pid)
    pod["status"].update(phase="Running", startTime=now)
    pod["status"]["containerStatuses"] = [
        {"name": container, "ready": True, "restartCount": 0, "state": {"running": {"startedAt": now}}}
    ]
    set_condition(pod, "Ready", "True")


def set_waiting(pod: Dict, container: str, reason: str, message: str) -> None:
    pod["status"]["containerStatuses"] = [
        {
            "name": container,
            "ready": False,
            "restartCount": 0,
            "state": {"waiting": {"reason": reason, "message": message}},
        }
    ]


def set_ended(pod: Dict, container: str, exit_code: int, reason: str, message: str) -> None:
    terminated: Dict = {
        "exitCode": exit_code,
        "reason": reason,
        "startedAt": pod["status"].get("startTime", timestamp()),
        "finishedAt": timestamp(),
    }
    if message:
        terminated["message"] = message
    pod["status"]["phase"] = "Succeeded" if exit_code == 0 else "Failed"
    pod["status"]["containerStatuses"] = [
        {"name": container, "ready": False, "restartCount": 0, "state": {"terminated": terminated}}
    ]
    if any(condition.get("type") == "Ready" for condition in pod["status"]["conditions"]):
        set_condition(pod, "Ready", "False", "PodCompleted" if exit_code == 0 else "PodFailed")


def set_condition(pod: Dict, kind: str, status: str, reason: str = "", message: str = "") -> None:
    """Add or replace a condition; the time of the last change stays if the status does."""
    conditions = pod["status"]["conditions"]
    old = next((condition for condition in conditions if condition.get("type") == kind), None)
    since = (old.get("lastTransitionTime") if old and old.get("status") == status else None) or timestamp()
    new = {"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message}
    if old is None:
        conditions.append(new)
    else:
        old.update(new)


def set_lost(pod: Dict, message: str) -> None:
    """A pod whose supervisor died is dead too: what the garbage collector writes on pods of a lost node."""
    if is_live(pod):
        set_condition(pod, "DisruptionTarget", "True", "DeletionByPodGC", message)
        name = text(pod, "status", "containerStatuses", 0, "name")
        set_ended(pod, name or "unknown", 137, "Error", message)


def is_live(pod: Dict) -> bool:
    return phase_of(pod) in ("Pending", "Running")


def conditions_of(pod: Dict) -> dict[str, str]:
    return {condition["type"]: condition["status"] for condition in pod["status"]["conditions"]}


def index_of(pod: Dict) -> int:
    return int(pod["metadata"]["labels"][INDEX_LABEL])
