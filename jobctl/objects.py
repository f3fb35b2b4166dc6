"""Reading Kubernetes objects: pods by index, exit codes, termination messages, back-offs. Pure, and never raises for
objects that are half filled or hold anything: a status is read while somebody writes it, and a pod says what it likes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from jobctl.untrusted import (
    MOST_INDEXES,
    UnreadableError,
    at,
    mapping,
    mappings,
    number,
    object_or_none,
    parse,
    text,
    whole,
)

INDEX_LABEL = "batch.kubernetes.io/job-completion-index"
PID_ANNOTATION = "jobctl.dev/pid"
ATTEMPT_ANNOTATION = "jobctl.dev/attempt"  # the number of a local pod among all of its job
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

UNWORDED_CHARACTERS = 300  # of a termination message that is no summary: enough for a line of a log

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


def parse_time(value: Any) -> datetime | None:
    """A Kubernetes timestamp (RFC 3339), or None where it is absent or is no time."""
    try:
        moment = datetime.fromisoformat((text(value) or "").replace("Z", "+00:00"))
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def parse_indexes(listed: Any) -> frozenset[int]:
    """Kubernetes' way to list indexes: "0,2-4" → {0, 2, 3, 4}. Those beyond what a Job can have are left out."""
    found: set[int] = set()
    for part in (text(listed) or "").split(","):
        first, dash, last = part.partition("-")
        start, end = whole(first), whole(last) if dash else whole(first)
        if start is not None and end is not None:
            found.update(range(start, min(end + 1, MOST_INDEXES)))
    return frozenset(found)


def completions_of(job: dict[str, Any]) -> int:
    """How many indexes the Job has."""
    return max(1, min(whole(job, "spec", "completions") or 1, MOST_INDEXES))


def read_summary(message: Any) -> dict[str, Any]:
    """A worker's termination message: its JSON object, or {"reason": last line} where it is anything else."""
    said = text(message)
    if said is None:
        return {}
    summary = object_or_none(said)
    if summary is not None:
        return summary
    return {"reason": one_line("".join(said.strip().splitlines()[-1:])[:UNWORDED_CHARACTERS])}


def by_index(pods: Iterable[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    """The pods of each index, oldest first."""
    found: dict[int, list[dict[str, Any]]] = {}
    for pod in pods:
        index = whole(pod, "metadata", "labels", INDEX_LABEL)
        if index is not None and 0 <= index < MOST_INDEXES:
            found.setdefault(index, []).append(pod)
    for of in found.values():
        of.sort(key=_age_order)
    return found


def _age_order(pod: dict[str, Any]) -> tuple[int, int, bool, str, str]:
    """By attempt as far as pods tell it, whatever the clock that dated them did; then by their dates."""
    return (
        whole(pod, "metadata", "annotations", ATTEMPT_ANNOTATION) or 0,
        failures_before(pod),
        at(pod, "metadata", "deletionTimestamp") is None,  # a pod on its way out came before its successor
        text(pod, "metadata", "creationTimestamp") or "",
        text(pod, "status", "startTime") or "~",  # a pod not started yet is the newest
    )


def failures_before(pod: dict[str, Any]) -> int:
    """How often its index had failed, ignored failures too, when the Job controller made this pod."""
    return sum(whole(pod, "metadata", "annotations", name) or 0 for name in FAILURE_COUNTS)


def phase_of(pod: dict[str, Any]) -> str:
    return text(pod, "status", "phase") or "Pending"


def termination_of(pod: dict[str, Any]) -> dict[str, Any] | None:
    terminated = at(pod, "status", "containerStatuses", 0, "state", "terminated")
    return terminated if isinstance(terminated, dict) else None


def exit_code_of(pod: dict[str, Any]) -> int | None:
    return whole(termination_of(pod), "exitCode")


def failure_of(pod: dict[str, Any]) -> str:
    """Why an ended pod ended, in one clause: what the kernel said, else the worker, else the cluster, else the code."""
    terminated, code = termination_of(pod), exit_code_of(pod)
    if text(terminated, "reason") == "OOMKilled":
        return f"OOMKilled: it used more memory than its limit (exit code {code})"
    said = one_line(read_summary(at(terminated, "message")).get("reason"))
    if said:
        return f"{said} (exit code {code})" if code == 1 else _with_meaning(code, said)
    disruption = condition_of(pod, "DisruptionTarget")
    if disruption and code not in (75, 76):
        by = one_line(disruption.get("message")) or text(disruption, "reason") or "by the cluster"
        return f"disrupted: {by} (exit code {code})"
    if code is None:
        return "ended without an exit code"
    return f"{EXIT_MEANINGS.get(code, 'crashed')} (exit code {code})"


def condition_of(thing: dict[str, Any], kind: str) -> dict[str, Any]:
    """The condition of that type of a pod or Job, or an empty one."""
    return next((c for c in mappings(thing, "status", "conditions") if c.get("type") == kind), {})


def true_conditions(thing: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The conditions of a pod or Job that hold, by their types."""
    listed = mappings(thing, "status", "conditions")
    return {kind: one for one in listed if one.get("status") == "True" and (kind := text(one, "type"))}


def lost_node_of(pod: dict[str, Any]) -> LostNode | None:
    """The node of a pod that runs as far as anybody knows: when a node falls silent, the node controller takes Ready
    from its pods, and leaves ContainersReady as the kubelet wrote it last.
    """
    ready = condition_of(pod, "Ready")
    known = condition_of(pod, "ContainersReady").get("status") == "True"
    if phase_of(pod) != "Running" or ready.get("status") != "False" or not known:
        return None
    return LostNode(text(pod, "spec", "nodeName") or "", parse_time(ready.get("lastTransitionTime")))


def _with_meaning(code: int | None, said: str) -> str:
    """The worker's sentence behind what its exit code means, where it doesn't say that itself."""
    meaning = EXIT_MEANINGS.get(code) if code is not None else None
    if meaning is None:
        return f"{said} (exit code {code})"
    return said if said.lower().startswith(meaning.split(",")[0].lower()) else f"{meaning}: {said}"


def replica_view(index: int, pods: list[dict[str, Any]], metrics_port: int | None) -> ReplicaView:
    pod = pods[-1]
    waiting = mapping(pod, "status", "containerStatuses", 0, "state", "waiting")
    scheduled = condition_of(pod, "PodScheduled")
    summary = read_summary(at(termination_of(pod), "message"))
    message = (
        one_line(summary.get("reason"))
        or one_line(at(pod, "metadata", "annotations", WAITING_ANNOTATION))
        or one_line(waiting.get("message") or waiting.get("reason"))
    )
    unscheduled = scheduled.get("status") == "False"
    if message is None and unscheduled:
        message = one_line(scheduled.get("message"))
    lost_node = lost_node_of(pod)
    if lost_node is not None:
        message = f"its {lost_node}"
    phase = phase_of(pod)
    address = text(pod, "status", "podIP")
    return ReplicaView(
        index=index,
        pod=text(pod, "metadata", "name") or "",
        phase=phase,
        exit_code=exit_code_of(pod),
        attempts=max(len(pods), failures_before(pod) + 1),  # an evicted pod leaves only its count
        pid=whole(pod, "metadata", "annotations", PID_ANNOTATION),
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
    for container in mappings(job, "spec", "template", "spec", "containers"):
        for port in mappings(container, "ports"):
            if port.get("name") == "metrics":
                return whole(port, "containerPort")
    return None


def read_backoffs(job: dict[str, Any], now: datetime) -> tuple[Backoff, ...]:
    """The indexes that wait, as the Job's annotation tells; a clock that was set back makes no wait longer."""
    annotations = mapping(job, "metadata", "annotations")
    try:
        listed = parse(text(annotations, BACKOFF_ANNOTATION) or "[]")
    except UnreadableError:
        return ()
    found, scale = [], _scale(text(annotations, SCALE_ANNOTATION))
    for wait in mappings(listed):
        index, until, seconds = whole(wait, "index"), number(wait, "until_unix_seconds"), number(wait, "seconds")
        if index is not None and until is not None and seconds is not None and until > now.timestamp():
            found.append(Backoff(index, min(until - now.timestamp(), seconds), seconds, scale))
    return tuple(sorted(found, key=lambda wait: wait.index))


def _scale(written: str | None) -> float | None:
    try:
        scale = float(written or "")
    except ValueError:
        return None
    return scale if math.isfinite(scale) and scale > 0 else None


def one_line(said: Any) -> str | None:
    """The text without line breaks and a final full stop, or None where there is none."""
    flat = " ".join((text(said) or "").split()).rstrip(".")
    return flat or None
