"""A real ensemble: five small networks, each cloned from the scripted policy with its own start and bootstrap sample.

Signal 0 is how much they disagree: the standard deviation of the actions that they predict, over the members, averaged
over the action. Where the robot senses what the good demonstrations also sensed, the members agree.

    python -m workers.envs.ensemble --fit

collects demonstrations from skilled, undisturbed episodes, fits the members and writes `ensemble.safetensors` beside
this file: deterministic on one machine and library version (one thread, fixed seeds). The fit's episodes have seeds
that no dataset uses (`workers.envs.settings.CollectSettings.seed_of` starts at 1,000,000).
Source: Lakshminarayanan et al., "Simple and scalable predictive uncertainty estimation using deep ensembles", 2017.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from workers.envs.pixels import Patch
from workers.envs.signals import Readings

WEIGHTS = Path(__file__).with_name("ensemble.safetensors")
FloatArray = NDArray[np.float64]
FEATURES = 16
MEMBERS = 5
CLIP = 4.0  # standard deviations: beyond that a feature says no more than "far out"


def features(readings: Readings) -> FloatArray:
    """What the ensemble sees (16,): both cube patches, tool position, gripper, wrist force, joint effort and lag."""
    r = readings
    return np.array(
        [
            *_patch(r.front_patch),
            *_patch(r.wrist_patch),
            *r.tool_position,
            r.gripper_opening,
            r.grip_effort,
            r.wrist_force[2],
            r.tracking_error,
            r.joint_effort,
        ]
    )


def _patch(patch: Patch | None) -> tuple[float, float, float, float]:
    return (0.0, 0.0, 0.0, 0.0) if patch is None else (1.0, patch.x, patch.y, patch.area)


@dataclass(frozen=True)
class Ensemble:
    """Weights of all members. `layers` holds (weight (M, in, out), bias (M, out)); `mean`, `scale` (F,) standardise."""

    mean: FloatArray
    scale: FloatArray
    layers: tuple[tuple[FloatArray, FloatArray], ...]

    @classmethod
    def load(cls, path: Path) -> Ensemble:
        from safetensors.numpy import load_file

        tensors = {name: value.astype(np.float64) for name, value in load_file(path).items()}
        count = sum(name.startswith("weight") for name in tensors)
        layers = tuple((tensors[f"weight{i}"], tensors[f"bias{i}"]) for i in range(count))
        return cls(tensors["mean"], tensors["scale"], layers)

    @classmethod
    @functools.cache
    def shipped(cls) -> Ensemble:
        """The ensemble that belongs to the scripted policy."""
        return cls.load(WEIGHTS)

    def actions(self, inputs: FloatArray) -> FloatArray:
        """The members' actions (M, 4) for features (F,). One sample at a time, so that how many environments run side
        by side can't change a bit."""
        hidden = np.minimum(np.maximum((inputs - self.mean) / self.scale, -CLIP), CLIP)[None, None, :]
        for weight, bias in self.layers[:-1]:
            hidden = np.tanh(hidden @ weight + bias[:, None])
        weight, bias = self.layers[-1]
        return (hidden @ weight)[:, 0] + bias

    def disagreement(self, inputs: FloatArray) -> float:
        """Standard deviation over the members, averaged over the action's four parts."""
        actions = self.actions(inputs)
        apart = actions - np.add.reduce(actions) / MEMBERS  # what .std(axis=0).mean() does, to the bit, at a third
        deviations = np.sqrt(np.add.reduce(np.square(apart)) / MEMBERS)
        return float(np.add.reduce(deviations)) / len(deviations)


if __name__ == "__main__":
    from workers.envs.fit_ensemble import main

    main()
