"""Precision, recall and F1 over the 16 outputs, from counts; a figure that is undefined is absent (None), never 0.

Shapes: E episodes · N timesteps · H = 4 horizons · F = 4 failure types. Counts end in 3: true positives, false
positives, false negatives.
"""

from collections.abc import Iterator

import numpy as np

from workers.episodes.schema import FAILURES, HORIZONS, RATE_HZ

FIGURES = ("precision", "recall", "f1")


def counts(probabilities: np.ndarray, labels: np.ndarray, threshold: float) -> np.ndarray:
    """(H, F, 3) int64 from probabilities (N, H, F) and labels (N, H, F) of 0 and 1; positive means ≥ threshold."""
    said, true = probabilities >= threshold, labels > 0
    return np.stack([(said & true).sum(0), (said & ~true).sum(0), (~said & true).sum(0)], axis=-1).astype(np.int64)


def figures(counted: np.ndarray) -> dict[str, float | None]:
    """Precision, recall and F1 = 2tp / (2tp + fp + fn) of counts (..., 3), pooled over all leading axes (micro)."""
    tp, fp, fn = (int(count) for count in counted.reshape(-1, 3).sum(0))
    pairs = {"precision": (tp, tp + fp), "recall": (tp, tp + fn), "f1": (2 * tp, 2 * tp + fp + fn)}
    return {name: above / below if below else None for name, (above, below) in pairs.items()}


def groups() -> Iterator[tuple[str, str, tuple[slice | int, ...]]]:
    """(key, title, index into (H, F)) of all outputs together, of each horizon and of each failure type."""
    yield "micro", "all 16 outputs", (slice(None), slice(None))
    for h, horizon in enumerate(HORIZONS):
        yield f"horizon_{horizon}", f"within {horizon} timesteps ({1000 * horizon // RATE_HZ} ms)", (h, slice(None))
    for f, failure in enumerate(FAILURES):
        yield failure, failure, (slice(None), f)


def best_threshold(probabilities: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """(threshold, F1) where micro F1 over all given outputs is largest; (0.5, 0) if no label is positive.

    Equal probabilities stand on one side of every threshold, so only the last of a run of equals is a place to cut.
    """
    score = np.asarray(probabilities, dtype=np.float64).ravel()
    falling = np.argsort(-score, kind="stable")
    score, true = score[falling], np.asarray(labels).ravel()[falling] > 0
    if not true.any():
        return 0.5, 0.0
    tp = np.cumsum(true)
    f1 = 2 * tp / (np.arange(1, len(score) + 1) + tp[-1])  # 2tp / (said positive + really positive)
    f1[:-1][score[:-1] == score[1:]] = -1.0
    best = int(np.argmax(f1))
    return float(score[best]), float(f1[best])


def intervals(
    counted: np.ndarray, draws: int, confidence: float, random: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """The interval of each defined figure by bootstrap over episodes, from counts (E, ..., 3).

    Episodes, not timesteps, are what is independent. Percentile method (Efron 1979); draws where a figure is undefined
    are left out.
    """
    by_episode = counted.reshape(len(counted), -1, 3).sum(1)
    weights = random.multinomial(len(counted), np.full(len(counted), 1 / len(counted)), size=draws)
    tp, fp, fn = (weights @ by_episode).T.astype(float)
    tail = 50 * (1 - confidence)
    found = {}
    for name, above, below in (("precision", tp, tp + fp), ("recall", tp, tp + fn), ("f1", 2 * tp, 2 * tp + fp + fn)):
        defined = below > 0
        if defined.any():
            low, high = np.percentile(above[defined] / below[defined], (tail, 100 - tail))
            found[name] = (float(low), float(high))
    return found
