"""Reading Kubernetes objects: pods by index, exit codes, termination messages, back-offs. Pure, and never raises for
objects that are half filled: a status is read while somebody writes it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
PID_ANNOTATION = "jobctl.dev/pid"
BACKOFF_ANNOTATION = "jobctl.dev/backoff"
SCALE_ANNOTATION = "jobctl.dev/backoff-scale"
# How often an index has failed: counted against its retries, and ignored by the podFailurePolicy.
FAILURE_COUNTS = (
    "batch.kubernetes.io/job-index-failure-count",
    "batch.kubernetes.io/job-index-ignored-failure-count",
)
# What a pending pod, or a Job without pods, waits for: the Kubernetes backend finds it in conditions and events.
WAITING_ANNOTATION = "jobctl.dev/waiting"
SPEC_HASH_LABEL = "jobctl.dev/spec-hash"

# What an exit code of a worker says where the worker left no sentence of its own (shared contract: workers/errors.py).
EXIT_MEANINGS: dict[int, str] = {
    0: "done",
    1: "crashed, the log says why",
    64: "bad configuration",
    65: "bad data",
    66: "gate missed",
    70: "three attempts without progress",
    75: "interrupted, state saved",
    76: "lost its peers",
    137: "killed (SIGKILL)",
    139: "crashed (SIGSEGV)",
    143: "terminated before it could save",
}


@dataclass(frozen=True)
class Backoff:
    """An index that the Job controller makes wait before its next pod."""

    index: int
    seconds_left: float
    seconds: float
    scale: float | None  # the local backend's factor on Kubernetes' seconds; None where they aren't scaled


@dataclass(frozen=True)
class LostNode:
    """A node that does not report any more, and since when the cluster thinks so."""

    name: str
    since: datetime | None

    def __str__(self) -> str:
        since = f" since {self.since.astimezone(UTC):%H:%M:%S} UTC" if self.since else ""
        return f"node {self.name} has not been heard of{since}"


@dataclass(frozen=True)
class ReplicaView:
    """The newest pod of one index."""

    index: int
    pod: str
    phase: str
    exit_code: int | None
    attempts: int
    pid: int | None
    address: str | None
    metrics_url: str | None
    message: str | None
    summary: dict[str, Any] = field(default_factory=dict)
    unscheduled: bool = False  # no node has been found for it yet
    lost_node: LostNode | None = None  # it was running when its node fell silent


def parse_time(text: str | None) -> datetime | None:
    """A Kubernetes timestamp (RFC 3339), or None where it is absent or is no time."""
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")) if text else None
    except ValueError:
        return None


def parse_indexes(text: str) -> frozenset[int]:
    """Kubernetes' way to list indexes: "0,2-4" → {0, 2, 3, 4}."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if part.isascii() and first.isdigit() and (last or first).isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def read_summary(message: str | None) -> dict[str, Any]:
    """A worker's termination message: its JSON object, or {"reason": last line} where it is anything else."""
    try:
        summary = json.loads(message or "{}")
    except ValueError:
        summary = None
    if isinstance(summary, dict):
        return summary
    return {"reason": one_line((message or "").strip().splitlines()[-1:])}


def by_index(pods: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The pods of each index, oldest first."""
    found: dict[int, list[dict[str, Any]]] = {}
    for pod in pods:
        index = (pod.get("metadata", {}).get("labels") or {}).get(INDEX_LABEL)
        if index is not None and str(index).isdigit():
            found.setdefault(int(index), []).append(pod)
    for of in found.values():
        of.sort(key=_age_order)
    return found


def _age_order(pod: dict[str, Any]) -> tuple[str, str]:
    created = pod.get("metadata", {}).get("creationTimestamp") or ""
    return (str(created), str((pod.get("status") or {}).get("startTime") or "~"))  # a pod not started yet is the newest


def failures_before(pod: dict[str, Any]) -> int:
    """How often its index had failed, ignored failures too, when the Job controller made this pod."""
    annotations = pod.get("metadata", {}).get("annotations") or {}
    counts = (str(annotations.get(name) or "0") for name in FAILURE_COUNTS)
    return sum(int(count) for count in counts if count.isdigit())


def _container_state(pod: dict[str, Any]) -> dict[str, Any]:
    containers = (pod.get("status") or {}).get("containerStatuses") or [{}]
    return containers[0].get("state") or {}


def termination_of(pod: dict[str, Any]) -> dict[str, Any] | None:
    return _container_state(pod).get("terminated")


def exit_code_of(pod: dict[str, Any]) -> int | None:
    terminated = termination_of(pod)
    return None if terminated is None else terminated.get("exitCode")


def failure_of(pod: dict[str, Any]) -> str:
    """Why an ended pod ended, in one clause: what the kernel said, else the worker, else the cluster, else the code."""
    terminated = termination_of(pod) or {}
    code = terminated.get("exitCode")
    if terminated.get("reason") == "OOMKilled":
        return f"OOMKilled: it used more memory than its limit (exit code {code})"
    said = one_line(read_summary(terminated.get("message")).get("reason"))
    if said:
        return f"{said} (exit code {code})" if code == 1 or code not in EXIT_MEANINGS else _with_meaning(code, said)
    disruption = condition_of(pod, "DisruptionTarget")
    if disruption and code not in (75, 76):
        by = one_line(disruption.get("message")) or disruption.get("reason") or "by the cluster"
        return f"disrupted: {by} (exit code {code})"
    if code is None:
        return "ended without an exit code"
    return f"{EXIT_MEANINGS.get(code, 'crashed')} (exit code {code})"


def condition_of(pod: dict[str, Any], kind: str) -> dict[str, Any]:
    """The pod's condition of that type, or an empty one."""
    return next((c for c in (pod.get("status") or {}).get("conditions") or [] if c.get("type") == kind), {})


def lost_node_of(pod: dict[str, Any]) -> LostNode | None:
    """The node of a pod that runs as far as anybody knows: when a node falls silent, the node controller takes Ready
    from its pods, and leaves ContainersReady as the kubelet wrote it last.
    """
    ready = condition_of(pod, "Ready")
    known = condition_of(pod, "ContainersReady").get("status") == "True"
    if (pod.get("status") or {}).get("phase") != "Running" or ready.get("status") != "False" or not known:
        return None
    return LostNode(str((pod.get("spec") or {}).get("nodeName") or ""), parse_time(ready.get("lastTransitionTime")))


def _with_meaning(code: int, said: str) -> str:
    meaning = EXIT_MEANINGS[code]
    return said if said.lower().startswith(meaning.split(",")[0].lower()) else f"{meaning}: {said}"


def replica_view(index: int, pods: list[dict[str, Any]], metrics_port: int | None) -> ReplicaView:
    pod = pods[-1]
    metadata, status = pod.get("metadata", {}), pod.get("status") or {}
    terminated = termination_of(pod)
    waiting = _container_state(pod).get("waiting") or {}
    scheduled = condition_of(pod, "PodScheduled")
    summary = read_summary(terminated.get("message")) if terminated else {}
    annotations = metadata.get("annotations") or {}
    message = (
        one_line(summary.get("reason"))
        or one_line(annotations.get(WAITING_ANNOTATION))
        or one_line(waiting.get("message") or waiting.get("reason"))
    )
    unscheduled = scheduled.get("status") == "False"
    if message is None and unscheduled:
        message = one_line(scheduled.get("message"))
    lost_node = lost_node_of(pod)
    if lost_node is not None:
        message = f"its {lost_node}"
    pid = annotations.get(PID_ANNOTATION)
    phase = str(status.get("phase") or "Pending")
    address = status.get("podIP")
    return ReplicaView(
        index=index,
        pod=str(metadata.get("name", "")),
        phase=phase,
        exit_code=exit_code_of(pod),
        attempts=max(len(pods), failures_before(pod) + 1),  # an evicted pod leaves only its count
        pid=int(pid) if pid is not None and str(pid).isdigit() else None,
        address=address,
        metrics_url=f"http://{address}:{metrics_port}/metrics"
        if address and metrics_port and phase == "Running" and lost_node is None
        else None,
        message=message,
        summary=summary,
        unscheduled=unscheduled,
        lost_node=lost_node,
    )


def metrics_port_of(job: dict[str, Any]) -> int | None:
    """The container port that the Job's pod template calls `metrics`."""
    template = (job.get("spec") or {}).get("template") or {}
    for container in (template.get("spec") or {}).get("containers") or []:
        for port in container.get("ports") or []:
            if port.get("name") == "metrics":
                return port.get("containerPort")
    return None


def read_backoffs(job: dict[str, Any], now: datetime) -> tuple[Backoff, ...]:
    annotations = job.get("metadata", {}).get("annotations") or {}
    try:
        listed = json.loads(annotations.get(BACKOFF_ANNOTATION) or "[]")
        scale = float(annotations[SCALE_ANNOTATION]) if SCALE_ANNOTATION in annotations else None
        waits = [
            (int(w["index"]), float(w["until_unix_seconds"]) - now.timestamp(), float(w["seconds"])) for w in listed
        ]
    except (ValueError, KeyError, TypeError):
        return ()
    return tuple(Backoff(index, left, seconds, scale) for index, left, seconds in sorted(waits) if left > 0)


def one_line(text: Any) -> str | None:
    """The text without line breaks and a final full stop, or None where there is none."""
    if isinstance(text, list):
        text = " ".join(str(part) for part in text)
    flat = " ".join(str(text).split()).rstrip(".") if text else ""
    return flat or None
