"""Calibration: do failures come as often as the probabilities say?

Bins of equal probability mass: each holds as many expected positives. Most probabilities are near 0, where bins of
equal width, or of equally many answers, would leave one or two for all that matters. Equal probabilities share a bin.
The expected calibration error is the mean over all answers of how far their bin's share of positives lies from its
mean probability (Naeini et al. 2015).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.tasks.predictor.metrics import interval

BINS = 10


@dataclass(frozen=True)
class Reliability:
    """Of each bin (K,), by rising probability: its answers, their mean probability, their share of positives.

    `low` and `high` bound that share (bootstrap over episodes)."""

    answers: np.ndarray
    predicted: np.ndarray
    observed: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1."""
        return float((self.answers * np.abs(self.predicted - self.observed)).sum() / self.answers.sum())


def reliability(
    probabilities: Sequence[np.ndarray], labels: Sequence[np.ndarray], weights: np.ndarray, confidence: float
) -> Reliability:
    """The curve of all answers, from arrays of any shape, one of each an episode; weights: see metrics.resampled."""
    rising = np.sort(np.concatenate([np.ravel(p) for p in probabilities]).astype(np.float64))
    mass = rising.cumsum()
    edges = np.unique(rising[np.searchsorted(mass, mass[-1] * np.arange(BINS) / BINS)])
    sums = np.stack(
        [_sums(np.ravel(p), np.ravel(y), edges) for p, y in zip(probabilities, labels, strict=True)]
    )  # (E, 3, K)
    answers, predicted, observed = sums.sum(0)
    full = answers > 0
    bounds = [interval(weights @ sums[:, 2, k], weights @ sums[:, 0, k], confidence) for k in np.flatnonzero(full)]
    low, high = np.array(bounds, dtype=float).T
    return Reliability(
        answers[full], predicted[full] / answers[full], observed[full] / answers[full], low=low, high=high
    )


def _sums(probabilities: np.ndarray, labels: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """(3, K): answers, sum of probabilities and positives of each bin (its lower edge belongs to it)."""
    place = np.searchsorted(edges, probabilities, side="right") - 1
    columns = (None, probabilities, (labels > 0).astype(float))
    return np.stack([np.bincount(place, weights=column, minlength=len(edges)) for column in columns])
