"""The Job controller's rules as pure functions: what a pod's end means, when an index may start again.

The source of every rule is the documentation of batch/v1 Job (Kubernetes 1.34).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

BACKOFF_FIRST_SECONDS = 10.0
BACKOFF_MAX_SECONDS = 600.0


class Action(StrEnum):
    """What podFailurePolicy says of a failed pod."""

    FAIL_JOB = "FailJob"
    FAIL_INDEX = "FailIndex"
    IGNORE = "Ignore"
    COUNT = "Count"


@dataclass(frozen=True)
class ExitCodes:
    """onExitCodes: `container` None means any container."""

    operator: str
    values: frozenset[int]
    container: str | None = None

    def matches(self, container: str, exit_code: int) -> bool:
        if exit_code == 0 or (self.container is not None and self.container != container):
            return False
        return (exit_code in self.values) == (self.operator == "In")


@dataclass(frozen=True)
class PodCondition:
    """A pattern of onPodConditions."""

    type: str
    status: str = "True"


@dataclass(frozen=True)
class FailureRule:
    """One rule of podFailurePolicy: exactly one of the two requirements is set."""

    action: Action
    exit_codes: ExitCodes | None = None
    conditions: tuple[PodCondition, ...] = ()


@dataclass(frozen=True)
class SuccessRule:
    """One rule of successPolicy; None is a requirement that isn't made."""

    indexes: frozenset[int] | None = None
    count: int | None = None


@dataclass(frozen=True)
class Decision:
    """What becomes of a failed pod, and why. `rule` is None where no rule matched."""

    action: Action
    rule: int | None = None
    why: str = ""


def decide(
    rules: Sequence[FailureRule], container: str, exit_code: int, conditions: Mapping[str, str], pod: str = ""
) -> Decision:
    """The first rule that matches a failed pod; a pod that no rule matches is counted.

    conditions: the pod's conditions as {type: status}.
    """
    for number, rule in enumerate(rules):
        if rule.exit_codes is not None and rule.exit_codes.matches(container, exit_code):
            cause = f"Container {container} for pod {pod} failed with exit code {exit_code}"
        elif hit := next((c for c in rule.conditions if conditions.get(c.type) == c.status), None):
            cause = f"Pod {pod} has condition {hit.type}"
        else:
            continue
        return Decision(rule.action, number, f"{cause} matching {rule.action} rule at index {number}")
    return Decision(Action.COUNT)


def backoff_seconds(failures: int, scale: float = 1.0) -> float:
    """The wait after the n-th failure (ignored ones too): 10 s, doubling, at most 600 s, times `scale`."""
    if failures <= 0:
        return 0.0
    exponent = min(failures - 1, 16)  # beyond that the maximum holds anyway, and floats stay finite
    return min(BACKOFF_FIRST_SECONDS * 2**exponent, BACKOFF_MAX_SECONDS) * scale


def success_rule_met(rules: Sequence[SuccessRule], succeeded: Collection[int]) -> int | None:
    """The number of the first successPolicy rule that the succeeded indexes meet, or None."""
    for number, rule in enumerate(rules):
        among = set(succeeded) if rule.indexes is None else rule.indexes & set(succeeded)
        needed = rule.count if rule.count is not None else len(rule.indexes or ())
        if len(among) >= needed:
            return number
    return None


def format_indexes(indexes: Iterable[int]) -> str:
    """Indexes as batch/v1 writes them: "0,2-4" (two neighbours are written "2,3"; three or more as a range)."""
    parts: list[str] = []
    run: list[int] = []
    for index in [*sorted(set(indexes)), None]:
        if run and index != run[-1] + 1:
            parts.extend([f"{run[0]}-{run[-1]}"] if len(run) > 2 else [str(i) for i in run])
            run = []
        if index is not None:
            run.append(index)
    return ",".join(parts)


def parse_indexes(text: str) -> frozenset[int]:
    """The inverse of format_indexes. Raises ValueError for anything else."""
    found: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        low, high = int(first), int(last if dash else first)
        if low > high:
            raise ValueError(f"{part!r} runs backwards")
        found.update(range(low, high + 1))
    return frozenset(found)
