"""What may disturb an episode: planned from its seed alone, carried out by the environment, seen by no signal directly.

| kind | physics |
|---|---|
| cube_shove | a push on the cube, away from the wall, for 4 timesteps: 1.0–1.6 m/s for a cube that is free |
| arm_shove | a push of 60–140 N on the hand for 6 timesteps, in any direction |
| slippery | the pads' friction falls to 12–25 % within half a second, as if wetted |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["cube_shove", "arm_shove", "slippery"]
KINDS: tuple[Kind, ...] = ("cube_shove", "arm_shove", "slippery")
KIND_SHARES = (0.5, 0.2, 0.3)
SHOVE_STEPS = {"cube_shove": 4, "arm_shove": 6}
WETTING_STEPS = 15


@dataclass(frozen=True)
class Perturbation:
    """`strength`: m/s given to the cube, N on the hand, or the share of friction that is left."""

    kind: Kind
    at_step: int
    strength: float
    direction: tuple[float, float, float]

    def shove(self, step: int) -> NDArray[np.float64] | None:
        """The push's direction times its strength at this step, None where there is none."""
        steps = SHOVE_STEPS.get(self.kind, 0)
        return self.strength * np.array(self.direction) if 0 <= step - self.at_step < steps else None

    def friction_share(self, step: int) -> float:
        """The share of the pads' own friction that is left at this step."""
        if self.kind != "slippery":
            return 1.0
        wet = np.clip((step - self.at_step) / WETTING_STEPS, 0.0, 1.0)
        return float(1.0 - wet * (1.0 - self.strength))


def plan(rng: np.random.Generator, share: float) -> Perturbation | None:
    """The perturbation of an episode, or None: drawn with probability `share`, the same draws whatever comes out."""
    chance, angle, tilt, size = rng.random(4)
    kind = KINDS[int(rng.choice(len(KINDS), p=KIND_SHARES))]
    at_step = int(rng.integers(10, 90))
    if chance >= share:
        return None
    # A push on the cube goes away from the wall, which would only stop it.
    yaw = np.pi * (1.2 * angle - 0.1) if kind == "cube_shove" else 2 * np.pi * angle
    height = 0.0 if kind == "cube_shove" else tilt - 0.5
    direction = (float(np.cos(yaw)), float(np.sin(yaw)), float(height))
    low, high = {"cube_shove": (1.0, 1.6), "arm_shove": (60.0, 140.0), "slippery": (0.12, 0.25)}[kind]
    return Perturbation(kind, at_step, float(low + (high - low) * size), direction)
