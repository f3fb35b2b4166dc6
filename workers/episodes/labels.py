"""Horizon labels: will a failure of this type happen within the next h timesteps?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.episodes.schema import FAILURES, HORIZONS, OUTCOMES

if TYPE_CHECKING:
    import numpy as np


def horizon_labels(steps: int, outcome: str) -> np.ndarray:
    """The labels of one episode: (T, 4, 4) uint8, [timestep, horizon, failure type].

    A failure comes of the last timestep's action, so the observation at timestep t is `steps - t` timesteps before it:
    one that fails has exactly min(h, steps) positive timesteps at horizon h, all of its own type; a success none.
    Raises ValueError for an unknown outcome or less than one step.
    """
    import numpy as np

    if outcome not in OUTCOMES:
        raise ValueError(f"outcome {outcome!r} is none of {', '.join(OUTCOMES)}")
    if steps < 1:
        raise ValueError(f"an episode has at least one timestep, not {steps}")
    labels = np.zeros((steps, len(HORIZONS), len(FAILURES)), dtype=np.uint8)
    if outcome in FAILURES:
        ahead = steps - np.arange(steps)  # timesteps until the failure, 1 at the last one
        labels[:, :, FAILURES.index(outcome)] = ahead[:, None] <= np.asarray(HORIZONS)[None, :]
    return labels
