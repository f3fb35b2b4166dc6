"""The state of one Job and its transitions, without processes, files or a clock of its own.

Instants are seconds of whatever clock the caller uses throughout (the supervisor: the monotonic one).
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from jobctl.local.plan import LocalJob
from jobctl.local.rules import (
    Action,
    Decision,
    backoff_seconds,
    decide,
    format_indexes,
    success_rule_met,
)


@dataclass(frozen=True)
class PodEnd:
    """How a pod ended. `conditions`: {type: status}. `removed`: the Job controller itself told it to end."""

    pod: str
    index: int
    exit_code: int
    conditions: dict[str, str] = field(default_factory=dict)
    removed: bool = False


@dataclass(frozen=True)
class Condition:
    type: str
    reason: str
    message: str
    status: str = "True"


@dataclass
class Tally:
    """Failed pods of one index, or of the whole job: what budgets and back-off are counted from."""

    counted: int = 0
    ignored: int = 0
    not_before: float = 0.0
    wait_seconds: float = 0.0

    @property
    def failures(self) -> int:
        return self.counted + self.ignored

    def fail(self, action: Action, now: float, scale: float) -> None:
        if action is Action.IGNORE:
            self.ignored += 1
        else:
            self.counted += 1
        self.wait_seconds = backoff_seconds(self.failures, scale)
        self.not_before = now + self.wait_seconds


@dataclass
class JobState:
    """What the Job controller remembers. `target` is set once the Job's end is decided, while pods still end."""

    succeeded: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    tallies: dict[int, Tally] = field(default_factory=dict)  # per index
    common: Tally = field(default_factory=Tally)  # since the last success: used with backoffLimit alone
    failed_pods: int = 0
    target: Condition | None = None

    def tally(self, job: LocalJob, index: int) -> Tally:
        """The back-off that holds for an index."""
        if job.backoff_limit_per_index is None:
            return self.common
        return self.tallies.setdefault(index, Tally())


def record_end(job: LocalJob, state: JobState, end: PodEnd, now: float, scale: float) -> Decision | None:
    """Take a pod's end into account; returns what podFailurePolicy decided, None where it wasn't asked.

    A pod that the controller removed counts if it succeeded. Otherwise it is forgotten after suspend and after a
    success policy, and is one more failed pod, without a say in budgets, where the Job has failed.
    """
    if end.exit_code == 0:
        state.succeeded.add(end.index)
        state.common = Tally()
        return None
    if end.removed:
        state.failed_pods += state.target is not None and state.target.type == "FailureTarget"
        return None
    decision = decide(job.failure_rules, job.template.container.name, end.exit_code, end.conditions, end.pod)
    tally = state.tally(job, end.index)
    tally.fail(decision.action, now, scale)
    if decision.action is not Action.IGNORE:
        state.failed_pods += 1
    if decision.action is Action.FAIL_JOB and state.target is None:
        state.target = Condition("FailureTarget", "PodFailurePolicy", decision.why)
    limit = job.backoff_limit_per_index
    if decision.action is Action.FAIL_INDEX or (limit is not None and tally.counted > limit):
        state.failed.add(end.index)
    return decision


def decide_end(job: LocalJob, state: JobState, active_seconds: float | None) -> Condition | None:
    """The condition that decides the Job's end, None while it goes on. A failure comes before a success policy.

    active_seconds: since the Job was last started or resumed; None while suspended.
    """
    if state.target is not None:
        return state.target
    for condition in (
        _over_budget(job, state),
        _past_deadline(job, active_seconds),
        _too_many_failed(job, state),
        _success(job, state),
        _all_ended(job, state),
    ):
        if condition is not None:
            return condition
    return None


def _over_budget(job: LocalJob, state: JobState) -> Condition | None:
    if job.backoff_limit is None or state.failed_pods <= job.backoff_limit:
        return None
    return Condition("FailureTarget", "BackoffLimitExceeded", "Job has reached the specified backoff limit")


def _past_deadline(job: LocalJob, active_seconds: float | None) -> Condition | None:
    limit = job.active_deadline_seconds
    if limit is None or active_seconds is None or active_seconds < limit:
        return None
    return Condition("FailureTarget", "DeadlineExceeded", "Job was active longer than specified deadline")


def _too_many_failed(job: LocalJob, state: JobState) -> Condition | None:
    if job.max_failed_indexes is None or len(state.failed) <= job.max_failed_indexes:
        return None
    message = "Job has exceeded the specified maximal number of failed indexes"
    return Condition("FailureTarget", "MaxFailedIndexesExceeded", message)


def _success(job: LocalJob, state: JobState) -> Condition | None:
    rule = success_rule_met(job.success_rules, state.succeeded)
    if rule is None:
        return None
    return Condition("SuccessCriteriaMet", "SuccessPolicy", f"Matched rules at index {rule}")


def _all_ended(job: LocalJob, state: JobState) -> Condition | None:
    if len(state.succeeded | state.failed) < job.completions:
        return None
    if state.failed - state.succeeded:
        return Condition("FailureTarget", "FailedIndexes", "Job has failed indexes")
    return Condition("SuccessCriteriaMet", "CompletionsReached", "Reached expected number of succeeded pods")


def final_condition(target: Condition) -> Condition:
    """What is said once no pod is left."""
    kind = "Failed" if target.type == "FailureTarget" else "Complete"
    return Condition(kind, target.reason, target.message)


def startable(job: LocalJob, state: JobState, occupied: Collection[int], now: float) -> list[int]:
    """Indexes that get a pod now, lowest first. `occupied`: those with a pod that hasn't fully ended yet."""
    room = job.parallelism - len(occupied)
    waiting = unfinished(job, state, occupied)
    ready = (index for index in waiting if state.tally(job, index).not_before <= now)
    return [index for _, index in zip(range(max(room, 0)), ready, strict=False)]


def unfinished(job: LocalJob, state: JobState, occupied: Collection[int]) -> list[int]:
    """Indexes that need a pod and have none."""
    taken = {*state.succeeded, *state.failed, *occupied}
    return [index for index in range(job.completions) if index not in taken]


def backoffs(job: LocalJob, state: JobState, occupied: Collection[int], now: float) -> list[tuple[int, float, float]]:
    """(index, instant when it may start, length of the wait in seconds) of every index that waits."""
    waiting = ((index, state.tally(job, index)) for index in unfinished(job, state, occupied))
    return [(index, tally.not_before, tally.wait_seconds) for index, tally in waiting if tally.not_before > now]


def index_strings(job: LocalJob, state: JobState) -> dict[str, str]:
    """completedIndexes, and failedIndexes where the Job has a back-off limit per index."""
    strings = {"completedIndexes": format_indexes(state.succeeded)}
    if job.backoff_limit_per_index is not None:
        strings["failedIndexes"] = format_indexes(state.failed)
    return strings
