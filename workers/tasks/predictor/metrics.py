"""Precision, recall and F1 over the 16 outputs, from counts; a figure that is undefined is absent (None), never 0.

Shapes: E episodes · N timesteps · H = 4 horizons · F = 4 failure types · D draws of the bootstrap. Counts end in 3:
true positives, false positives, false negatives.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from workers.episodes.schema import FAILURES, HORIZONS, RATE_HZ

FIGURES = ("precision", "recall", "f1")
# The clock alone foretells a timeout, so figures come with and without it, each at the threshold that is best for them.
SCOPES = {
    "all": np.ones((len(HORIZONS), len(FAILURES)), dtype=bool),
    "without_timeout": np.broadcast_to(np.array(FAILURES) != "timeout", (len(HORIZONS), len(FAILURES))),
}


@dataclass(frozen=True)
class Group:
    """Outputs whose figures are pooled. `outputs`: (H, F) bool; `scope`: whose threshold they are judged at."""

    key: str
    title: str
    scope: str
    outputs: np.ndarray


def groups() -> Iterator[Group]:
    """All outputs together, each horizon, each failure type; all but the last also without timeouts."""
    for scope, suffix, words in (("all", "", ""), ("without_timeout", "_without_timeout", ", without timeout")):
        chosen = SCOPES[scope]
        key = scope if scope != "all" else "micro"
        yield Group(key, f"all {chosen.sum()} outputs{words}", scope, chosen)
        for horizon in HORIZONS:
            at_H1 = (np.array(HORIZONS) == horizon)[:, None]  # noqa: N806 - ends in its shape
            title = f"within {horizon} timesteps ({1000 * horizon // RATE_HZ} ms){words}"
            yield Group(f"horizon_{horizon}{suffix}", title, scope, chosen & at_H1)
        if scope == "all":
            for failure in FAILURES:
                yield Group(failure, failure, scope, chosen & (np.array(FAILURES) == failure))


def counts(probabilities: np.ndarray, labels: np.ndarray, threshold: float) -> np.ndarray:
    """(H, F, 3) int64 from probabilities (N, H, F) and labels (N, H, F) of 0 and 1; positive means ≥ threshold."""
    said, true = probabilities >= threshold, labels > 0
    return np.stack([(said & true).sum(0), (said & ~true).sum(0), (~said & true).sum(0)], axis=-1).astype(np.int64)


def figures(counted: np.ndarray) -> dict[str, float | None]:
    """Precision, recall and F1 = 2tp / (2tp + fp + fn) of counts (..., 3), pooled over all leading axes (micro)."""
    ratios = _ratios(counted.reshape(-1, 3).sum(0))
    return {name: float(above / below) if below else None for name, (above, below) in ratios.items()}


def best_threshold(probabilities: np.ndarray, labels: np.ndarray, beta: float = 1.0) -> tuple[float, float]:
    """(threshold, F) where micro F-beta over all given outputs is largest; (0.5, 0) if no label is positive.

    F-beta = (1 + beta²) tp / ((1 + beta²) tp + beta² fn + fp): recall counts beta times as much as precision
    (van Rijsbergen 1979), and with beta 1 it is F1.

    Equal probabilities stand on one side of every threshold, so only the last of a run of equals is a place to cut.
    """
    score = np.asarray(probabilities, dtype=np.float64).ravel()
    falling = np.argsort(-score, kind="stable")
    score, true = score[falling], np.asarray(labels).ravel()[falling] > 0
    if not true.any():
        return 0.5, 0.0
    tp = np.cumsum(true)
    said, really = np.arange(1, len(score) + 1), tp[-1]  # tp + fp, tp + fn
    found = (1 + beta**2) * tp / (said + beta**2 * really)
    found[:-1][score[:-1] == score[1:]] = -1.0
    best = int(np.argmax(found))
    return float(score[best]), float(found[best])


def resampled(episodes: int, draws: int, random: np.random.Generator) -> np.ndarray:
    """(D, E) how often each episode is in each draw of the bootstrap: episodes, not timesteps, are independent."""
    return random.multinomial(episodes, np.full(episodes, 1 / episodes), size=draws)


def intervals(counted: np.ndarray, weights: np.ndarray, confidence: float) -> dict[str, tuple[float, float]]:
    """The interval of each defined figure by bootstrap over episodes, from counts (E, ..., 3) and weights (D, E)."""
    drawn = weights @ counted.reshape(len(counted), -1, 3).sum(1)
    found = {}
    for name, (above, below) in _ratios(drawn.T).items():
        low, high = interval(above, below, confidence)
        if low is not None and high is not None:
            found[name] = (low, high)
    return found


def gain(
    counted: np.ndarray, other: np.ndarray, weights: np.ndarray, confidence: float
) -> tuple[float | None, float | None, float | None]:
    """F1 of counts (E, ..., 3) less that of others on the same episodes, and the interval of that difference.

    Paired: both are drawn together, so what is hard in an episode for both does not widen the interval.
    """
    one, two = figures(counted)["f1"], figures(other)["f1"]
    if one is None or two is None:
        return None, None, None
    drawn = [_ratios((weights @ some.reshape(len(some), -1, 3).sum(1)).T)["f1"] for some in (counted, other)]
    (above, below), (other_above, other_below) = drawn
    low, high = interval(above * other_below - other_above * below, below * other_below, confidence)
    return one - two, low, high


def interval(above: np.ndarray, below: np.ndarray, confidence: float) -> tuple[float | None, float | None]:
    """Where the ratios above/below (D,) lie: percentile method (Efron 1979). Draws where one is undefined are left out.

    (None, None) if all are.
    """
    defined = below > 0
    if not defined.any():
        return None, None
    tail = 50 * (1 - confidence)
    low, high = np.percentile(above[defined] / below[defined], (tail, 100 - tail))
    return float(low), float(high)


def _ratios(counted: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Numerator and denominator of each figure, from counts (3, ...)."""
    tp, fp, fn = np.asarray(counted, dtype=float)
    return {"precision": (tp, tp + fp), "recall": (tp, tp + fn), "f1": (2 * tp, 2 * tp + fp + fn)}
