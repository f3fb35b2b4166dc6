"""Alarms: how often a predictor warns for nothing, and how long before a failure it warns in earnest.

An alarm is on at a timestep whose highest probability reaches the threshold. It says what the outputs say: a failure
comes within the longest horizon (15 timesteps, 0.5 s). So in the last 15 timesteps before a failure it is true, and the
failure's lead time runs from the first of these where it is on: at most 0.5 s. At every other timestep it is false, in
episodes that fail as in those that succeed; false alarms are counted so that one holds for the 15 timesteps that it
speaks of and is counted again if it is still on thereafter.

Hence who always warns has two false alarms a second, warning at random announces few failures, and a lower threshold
never announces fewer, nor later, nor with fewer false alarms. It is the rule of seizure prediction (Winterhalder et
al. 2003, Epilepsy & Behavior 4): an alarm is counted against the period that it announces, and none within that period.

Shapes: E episodes · A thresholds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from workers.episodes.schema import HORIZONS, RATE_HZ
from workers.tasks.predictor.metrics import interval

HOLD = HORIZONS[-1]  # timesteps that an alarm holds
MOST_THRESHOLDS = 400  # tried for a budget, denser where probabilities are high: alarms are rare


@dataclass(frozen=True)
class Alarms:
    """`false_EA`: false alarms of each episode. `lead_EA`: its failure's lead time in timesteps, 0 if not announced."""

    false_EA: np.ndarray  # noqa: N815 - the name ends in its shape
    lead_EA: np.ndarray  # noqa: N815


def raised(scores: Sequence[np.ndarray], fails: np.ndarray, thresholds: np.ndarray) -> Alarms:
    """The alarms of episodes at each threshold.

    scores: of each episode, its timesteps' highest probabilities (T,); fails (E,): whether a failure comes at its end,
    T - t timesteps after timestep t. thresholds (A,).
    """
    lengths = np.array([len(score) for score in scores])
    shape = (len(lengths), len(thresholds))
    padded = np.full((len(lengths), max(lengths, default=0)), -np.inf)
    for row, score in zip(padded, scores, strict=True):
        row[: len(score)] = score
    ahead_ET = lengths[:, None] - np.arange(padded.shape[1])  # noqa: N806
    true_ET = np.asarray(fails, dtype=bool)[:, None] & (ahead_ET <= HOLD)  # noqa: N806
    last, false, lead = np.full(shape, -HOLD), np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for t in range(padded.shape[1]):
        on = (padded[:, t, None] >= thresholds) & (ahead_ET[:, t, None] > 0)
        true = true_ET[:, t, None]
        lead = np.maximum(lead, np.where(on & true, ahead_ET[:, t, None], 0))
        counted = on & ~true & (t - last >= HOLD)
        last[counted] = t
        false += counted
    return Alarms(false, lead)


def thresholds_of(scores: Sequence[np.ndarray]) -> np.ndarray:
    """Thresholds worth trying, falling: distinct scores, all of the highest ones and ever fewer of the lower ones."""
    falling = np.unique(np.concatenate(scores))[::-1]
    ranks = np.unique(np.geomspace(1, len(falling), MOST_THRESHOLDS).astype(int)) - 1
    return falling[ranks]


def threshold_within(scores: Sequence[np.ndarray], fails: np.ndarray, budget: float) -> float:
    """The lowest threshold that gives at most `budget` false alarms an episode; inf if none does."""
    tried = thresholds_of(scores)  # falling, so false alarms rise
    within = int((raised(scores, fails, tried).false_EA.mean(0) <= budget).sum())
    return float(tried[within - 1]) if within else float("inf")


def figures(
    alarms: Alarms, fails: np.ndarray, succeeds: np.ndarray, weights: np.ndarray, confidence: float
) -> dict[str, float | None]:
    """What the first threshold of `alarms` gives, each with NAME_low and NAME_high from a bootstrap over episodes.

    false_alarms: an episode; false_alarms_in_successes: an episode that succeeds; alarmed_share: of the failures;
    median_lead_seconds: of the failures that were announced. weights: see metrics.resampled.
    """
    false, lead = alarms.false_EA[:, 0], alarms.lead_EA[:, 0]
    alarmed, every = lead > 0, np.ones(len(lead))
    pairs = {
        "false_alarms": (false, every),
        "false_alarms_in_successes": (false * succeeds, succeeds),
        "alarmed_share": (alarmed, np.asarray(fails)),
    }
    found: dict[str, float | None] = {}
    for name, (above, below) in pairs.items():
        value = float(above.sum() / below.sum()) if below.sum() else None
        low, high = interval(weights @ above, weights @ below, confidence)
        found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    seconds = {}
    for name, weight in (("now", every[None]), ("drawn", weights)):
        counted = weight @ (alarmed[:, None] & (lead[:, None] == np.arange(1, HOLD + 1))).astype(float)
        seconds[name] = medians(counted.astype(int), np.arange(1, HOLD + 1) / RATE_HZ)
    low, high = interval(seconds["drawn"], np.isfinite(seconds["drawn"]).astype(float), confidence)
    now = float(seconds["now"][0])
    found |= {"median_lead_seconds": now if np.isfinite(now) else None}
    return found | {"median_lead_seconds_low": low, "median_lead_seconds_high": high}


def medians(counted: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The median of each row: counted (N, V) is how often each of the rising `values` (V,) occurs; nan where never."""
    total, below = counted.sum(1, keepdims=True), counted.cumsum(1)
    lower, upper = ((below <= middle).sum(1).clip(max=len(values) - 1) for middle in ((total - 1) // 2, total // 2))
    return np.where(total[:, 0] > 0, (values[lower] + values[upper]) / 2, np.nan)
