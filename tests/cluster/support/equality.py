"""How far the weights of a group may be from those of a single replica, and who used which samples."""

from __future__ import annotations

import re

UNIT = 2.0**-24  # a float32 sum is rounded by at most this, relatively


def allowed_difference(batch: int, rates: float, steps: int, largest: float) -> float:
    """What docs/groups.md derives. `rates`: the sum of all steps' learning rates; `largest`: the largest weight."""
    return UNIT * (batch**1.5 * rates + steps * largest)


def samples_of(log: str) -> dict[int, set[str]]:
    """What a process used in each step (JOBCTL_LOG_SAMPLES): sample:checksum of its data."""
    return {int(step): set(told.split()) for step, told in re.findall(r"samples of step (\d+) epoch \d+: (.*)", log)}
