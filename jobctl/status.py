"""What a job's objects mean: state and one-sentence reason. Pure: no clock, no files, no backend.

The whole judgement is one table, `RULES`: read it from the top, the first rule that holds gives the state. Words for
exit codes are in objects.py; the worker's own sentence (its termination message) always goes before them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args

from jobctl.backend import Record
from jobctl.objects import (
    SPEC_HASH_LABEL,
    WAITING_ANNOTATION,
    Backoff,
    ReplicaView,
    by_index,
    completions_of,
    exit_code_of,
    failure_of,
    metrics_port_of,
    one_line,
    parse_indexes,
    parse_time,
    read_backoffs,
    replica_view,
    termination_of,
    true_conditions,
)
from jobctl.untrusted import at, mapping, text

State = Literal[
    "pending",
    "starting",
    "running",
    "recovering",
    "suspended",
    "cancelled",
    "interrupted",
    "succeeded",
    "failed",
    "unknown",
]
STATES: tuple[str, ...] = get_args(State)
# States of a job that something still works on: the same spec submitted again finds nothing to do.
ACTIVE = frozenset({"pending", "starting", "running", "recovering"})
# States that don't change without a user.
ENDED = frozenset({"succeeded", "failed", "cancelled", "interrupted"})

# What a Job's Failed condition says, by its reason, where no pod says it better.
CONDITION_MEANINGS: dict[str, str] = {
    "DeadlineExceeded": "it ran longer than its deadlineSeconds",
    "BackoffLimitExceeded": "too many attempts crashed",
    "FailedIndexes": "at least one index used up its retries",
    "MaxFailedIndexesExceeded": "an index of the group used up its retries",
    "PodFailurePolicy": "an exit code says that trying again can't help",
}


# The taint that says of a node that it is off: its pods are given up, and may be replaced.
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"


@dataclass(frozen=True)
class JobView:
    """One job as `list` and `status` show it."""

    name: str
    state: State
    reason: str
    revision: int
    kind: str
    task: str
    gpu: str
    spec_hash: str | None
    completions: int
    replicas: tuple[ReplicaView, ...]
    backoffs: tuple[Backoff, ...]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    controller: str


def view(record: Record, now: datetime) -> JobView:
    """The record as a user reads it. `now` must be timezone-aware; never raises for objects that are half filled."""
    facts = Facts.of(record, now)
    rule = next(rule for rule in RULES if rule.holds(facts))
    labels = mapping(record.job, "metadata", "labels")
    finished = facts.conditions.get("Complete") or facts.conditions.get("Failed") or {}
    return JobView(
        name=record.name,
        state=rule.state,
        reason=rule.because(facts),
        revision=record.revision,
        kind=str(labels.get("jobctl.dev/kind") or record.values.get("kind", "")),
        task=str(labels.get("jobctl.dev/task") or record.values.get("task", "")),
        gpu=str(labels.get("jobctl.dev/gpu") or record.values.get("gpu", "")),
        spec_hash=text(labels, SPEC_HASH_LABEL),
        completions=facts.completions,
        replicas=facts.replicas,
        backoffs=facts.backoffs,
        created_at=record.created_at,
        started_at=parse_time(at(record.job, "status", "startTime")),
        finished_at=parse_time(at(record.job, "status", "completionTime") or finished.get("lastTransitionTime")),
        controller=record.controller,
    )


def is_ended(job: JobView) -> bool:
    """Whether waiting longer can't change the state: its own end, or nothing is there that could go on."""
    return job.state in ENDED or (job.state == "unknown" and job.controller != "alive")


@dataclass(frozen=True)
class Facts:
    """What the rules look at, read once from the objects."""

    name: str
    record: Record
    completions: int
    conditions: dict[str, dict[str, Any]]  # only those whose status is "True"
    replicas: tuple[ReplicaView, ...]
    backoffs: tuple[Backoff, ...]
    completed: frozenset[int]
    failed: frozenset[int]
    failures: dict[int, str]  # index → why its newest ended pod ended, where that wasn't with 0

    @classmethod
    def of(cls, record: Record, now: datetime) -> Facts:
        pods = by_index(record.pods)
        port = metrics_port_of(record.job)
        replicas = tuple(replica_view(index, pods[index], port) for index in sorted(pods))
        ended = {index: [pod for pod in pods[index] if termination_of(pod)] for index in pods}
        failures = {index: failure_of(of[-1]) for index, of in ended.items() if of and exit_code_of(of[-1]) != 0}
        return cls(
            name=record.name,
            record=record,
            completions=completions_of(record.job),
            conditions=true_conditions(record.job),
            replicas=replicas,
            backoffs=read_backoffs(record.job, now),
            completed=parse_indexes(at(record.job, "status", "completedIndexes")),
            failed=parse_indexes(at(record.job, "status", "failedIndexes")),
            failures=failures,
        )

    @property
    def ended(self) -> frozenset[int]:
        """Also those whose pod has succeeded, though the Job controller has not counted it yet."""
        return self.completed | self.failed | {r.index for r in self.replicas if r.phase == "Succeeded"}

    @property
    def running(self) -> tuple[ReplicaView, ...]:
        alive = (r for r in self.replicas if r.phase == "Running" and r.lost_node is None)
        return tuple(r for r in alive if r.index not in self.ended)

    @property
    def waiting(self) -> tuple[ReplicaView, ...]:
        return tuple(r for r in self.replicas if r.phase == "Pending" and r.index not in self.ended)

    @property
    def lost(self) -> tuple[ReplicaView, ...]:
        """Those that run as far as anybody knows, on a node that is not heard of."""
        return tuple(r for r in self.replicas if r.lost_node is not None and r.index not in self.ended)

    @property
    def down(self) -> frozenset[int]:
        """Indexes that ran before, have not ended, and have no running pod now."""
        back = {b.index for b in self.backoffs if b.index not in self.ended}
        again = {r.index for r in self.waiting if r.attempts > 1}
        gone = {r.index for r in self.replicas if r.phase == "Failed" and r.index not in self.ended}
        return frozenset(back | again | gone | {r.index for r in self.lost})

    @property
    def absent(self) -> frozenset[int]:
        """Indexes for which no pod could be made yet."""
        return frozenset(range(self.completions)) - self.ended - {replica.index for replica in self.replicas}

    @property
    def waits_for(self) -> str | None:
        """What keeps the Job controller from making pods."""
        return one_line(at(self.record.job, "metadata", "annotations", WAITING_ANNOTATION))

    def saying(self, index: int, sentence: str) -> str:
        """The sentence, with its index where there are several."""
        return sentence if self.completions == 1 else f"index {index}: {sentence}"


@dataclass(frozen=True)
class Rule:
    state: State
    holds: Callable[[Facts], bool]
    because: Callable[[Facts], str]


def _succeeded(facts: Facts) -> str:
    if facts.completions == 1:
        return _message_of(facts, 0) or "done"
    if len(facts.completed) < facts.completions:
        return f"index 0 finished the group's work (of {facts.completions} replicas)"
    return f"all {facts.completions} indexes are done"


def _failed(facts: Facts) -> str:
    condition = facts.conditions.get("Failed") or facts.conditions.get("FailureTarget") or {}
    reason = text(condition, "reason") or ""
    meaning = CONDITION_MEANINGS.get(reason)
    if reason == "DeadlineExceeded":
        return f"{meaning}"
    guilty = [index for index in sorted(facts.failures) if index in facts.failed] or sorted(facts.failures)
    if guilty:
        more = f" (and {len(guilty) - 1} more)" if len(guilty) > 1 else ""
        return facts.saying(guilty[0], facts.failures[guilty[0]]) + more
    return meaning or one_line(condition.get("message")) or "the Job failed and no pod says why"


def _cancelled(facts: Facts) -> str:
    return f"by a user{_ending(facts)}; `jobctl resume {facts.name}` goes on from the last save"


def _suspended(facts: Facts) -> str:
    return f"by a user{_ending(facts)}; `jobctl resume {facts.name}` goes on from the last save"


def _ending(facts: Facts) -> str:
    number = len(facts.running)
    return f", {number} replica{'s' if number > 1 else ''} still saving" if number else ""


def _interrupted(facts: Facts) -> str:
    return f"the local supervisor is gone (killed, or the machine restarted): `jobctl retry {facts.name}` resumes"


def _recovering(facts: Facts) -> str:
    index = min((replica.index for replica in facts.lost), default=min(facts.down))  # what only a user can mend first
    why = f" after: {facts.failures[index]}" if index in facts.failures else ""
    wait = next((b for b in facts.backoffs if b.index == index), None)
    others = f"; {len(facts.running)} of {facts.completions} run" if facts.completions > 1 else ""
    node = next((r.lost_node for r in facts.lost if r.index == index), None)
    if node is not None:
        gone = f"`kubectl taint node {node.name} {OUT_OF_SERVICE}` or `kubectl delete node {node.name}`"
        return f"{node}; if it is gone for good, {gone} lets index {index} start elsewhere{others}"
    if wait is None:
        waits = next((f": {r.message}" for r in facts.waiting if r.index == index and r.message), "")
        return f"index {index} starts again{waits}{why}{others}"
    scaled = (
        ""
        if wait.scale is None
        else f" ({wait.seconds / wait.scale:.0f} s, scaled ×{wait.scale:g} on the local backend)"
    )
    return f"index {index} waits {wait.seconds_left:.0f} s more in the Job controller's back-off{scaled}{why}{others}"


def _pending(facts: Facts) -> str:
    """What it waits for: room on a node, or what keeps the Job controller from making pods."""
    if facts.waiting:
        first = facts.waiting[0]
        return facts.saying(first.index, first.message or "no node has been found for its pod yet")
    return facts.waits_for or "no pod has been created yet"


def _starting(facts: Facts) -> str:
    first = facts.waiting[0]
    return facts.saying(first.index, first.message or "its pod is being started")


def _running(facts: Facts) -> str:
    lost = sorted(facts.failed & facts.failures.keys())
    if lost:
        return f"{len(facts.running)} of {facts.completions} go on; index {lost[0]} failed: {facts.failures[lost[0]]}"
    if facts.completions == 1:
        return "running"
    done = f", {len(facts.completed)} done" if facts.completed else ""
    missing = f"; the others wait: {facts.waits_for}" if facts.waits_for and facts.absent else ""
    return f"{len(facts.running)} of {facts.completions} replicas run{done}{missing}"


RULES: tuple[Rule, ...] = (
    # Whatever its objects say, they can't be relied on.
    Rule("unknown", lambda f: f.record.doubt is not None, lambda f: one_line(f.record.doubt) or "it can't be read"),
    # The Job has ended: nothing that came before or after changes that.
    Rule("succeeded", lambda f: "Complete" in f.conditions, _succeeded),
    Rule("failed", lambda f: "Failed" in f.conditions, _failed),
    # A user's wish holds even where nothing is left that could act on it.
    Rule("cancelled", lambda f: f.record.cancelled, _cancelled),
    Rule("suspended", lambda f: f.record.suspended, _suspended),
    # Nobody acts on the job any more, so whatever its objects say is old.
    Rule("interrupted", lambda f: f.record.controller == "gone", _interrupted),
    # Decided, but its last pods still end.
    Rule("succeeded", lambda f: "SuccessCriteriaMet" in f.conditions and not f.running, _succeeded),
    Rule("running", lambda f: "SuccessCriteriaMet" in f.conditions, lambda f: "done; its last pods are ending"),
    Rule("failed", lambda f: "FailureTarget" in f.conditions and not f.running, _failed),
    Rule("running", lambda f: "FailureTarget" in f.conditions, lambda f: f"failing: {_failed(f)}"),
    Rule("unknown", lambda f: f.record.controller == "finished", lambda f: "its controller ended without saying how"),
    # It goes on. An index that ran before and is down now is worth more words than those that run.
    Rule("recovering", lambda f: bool(f.down), _recovering),
    Rule("pending", lambda f: bool(f.waiting) and all(r.unscheduled for r in f.waiting), _pending),
    Rule("starting", lambda f: bool(f.waiting), _starting),
    Rule("running", lambda f: bool(f.running), _running),
    Rule("pending", lambda f: not f.replicas, _pending),
    Rule("running", lambda f: bool(f.ended) and len(f.ended) >= f.completions, lambda f: "its last pods are ending"),
    Rule("unknown", lambda f: True, lambda f: f"its pods are in phase {f.replicas[0].phase}, which says nothing"),
)


def _message_of(facts: Facts, index: int) -> str | None:
    return next((replica.message for replica in facts.replicas if replica.index == index), None)
