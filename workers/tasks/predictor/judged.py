"""One predictor's answers to the test episodes, at the thresholds that were chosen for it on validation episodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from workers.tasks.predictor import alarms, metrics

Chosen = dict[str, float]  # by scope


@dataclass(frozen=True)
class Judged:
    """`probabilities` and `labels`: (B, H, F) of each episode. `alarm_thresholds`: by scope, one of each budget."""

    name: str
    probabilities: Sequence[np.ndarray]
    labels: Sequence[np.ndarray]
    thresholds: Chosen
    alarm_thresholds: dict[str, list[float]] = field(default_factory=dict)

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """(E, H, F, 3) at each scope's threshold, see metrics.counts."""
        pairs = list(zip(self.probabilities, self.labels, strict=True))
        return {
            scope: np.stack([metrics.counts(answers, labels, threshold) for answers, labels in pairs])
            for scope, threshold in self.thresholds.items()
        }

    def of(self, group: metrics.Group) -> np.ndarray:
        """The counts (E, outputs, 3) of some of the outputs."""
        return self.counts[group.scope][:, group.outputs]


def scores(probabilities: Sequence[np.ndarray], scope: str) -> list[np.ndarray]:
    """What alarms are raised by: the highest probability of each timestep, (B,) an episode."""
    return [answers[:, metrics.SCOPES[scope]].max(1) for answers in probabilities]


def fails(labels: Sequence[np.ndarray], scope: str) -> np.ndarray:
    """(E,) bool: whether the episode ends in a failure of a type in scope."""
    return np.array([bool(label[:, metrics.SCOPES[scope]].any()) for label in labels])


def choose_thresholds(probabilities: np.ndarray, labels: np.ndarray, beta: float) -> Chosen:
    """The best for F-beta of each scope, from (N, H, F)."""
    return {
        scope: metrics.best_threshold(probabilities[:, outputs], labels[:, outputs], beta)[0]
        for scope, outputs in metrics.SCOPES.items()
    }


def choose_alarm_thresholds(
    probabilities: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    budgets: Sequence[float],
    alive: Callable[[], None],
) -> dict[str, list[float]]:
    """Of each scope and budget the lowest that keeps to it on these episodes, (B, H, F) each."""
    found: dict[str, list[float]] = {}
    for scope in metrics.SCOPES:
        rises, failing = scores(probabilities, scope), fails(labels, scope)
        found[scope] = [alarms.threshold_within(rises, failing, budget) for budget in budgets]
        alive()
    return found
