"""Which part of the data an episode belongs to: decided by its seed alone, never by timestep."""

from __future__ import annotations

import hashlib
from typing import Literal

Split = Literal["train", "validation", "test"]
SHARES: tuple[tuple[Split, float], ...] = (("train", 0.70), ("validation", 0.15), ("test", 0.15))


def split_of(seed: int) -> Split:
    """The split of the episode with this seed: a pure function, so it stays where it is when others are added."""
    position = int.from_bytes(hashlib.sha256(f"split {seed}".encode()).digest()[:8], "big") / 2**64
    below = 0.0
    for name, share in SHARES:
        below += share
        if position < below:
            return name
    return SHARES[-1][0]
