"""Batch and learning rate of a step: pure functions of settings, step and number of processes."""

import math
from typing import Any


def batch_and_lr(settings: Any, processes: int) -> tuple[int, float]:
    """Samples of one step over all processes, and the rate for them: batchPerReplica multiplies both, batch neither."""
    if settings.batch_per_replica is None:
        return settings.batch, settings.lr
    return settings.batch_per_replica * processes, settings.lr * processes


def learning_rate(step: int, steps: int, peak: float, warmup_fraction: float, schedule: str = "cosine") -> float:
    """The rate of a step, counted from 0: a linear rise to `peak`, then a cosine down to 0 at `steps` (SGDR, 2016).

    `schedule` constant stays at `peak`.
    """
    warmup = math.ceil(steps * warmup_fraction)
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
