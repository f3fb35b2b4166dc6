"""From a robot's sensor readings to the twelve signals and the proprioceptive state.

Everything here is computed from `Readings`, which hold only what a real arm's controller could read at that moment:
encoders, motor currents, a force sensor at the wrist, pictures, its own last commands. There is no way from here to
the simulator. The names and units stand in `workers.episodes.schema.SIGNALS`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from workers.envs.pixels import Camera, Patch

FloatArray = NDArray[np.float64]
CUBE_UNSEEN_OFFSET = 1.0  # image widths: farther than any patch that is seen
GRIPPER_IN_WRIST_IMAGE = (0.50, 0.845)  # where the held cube's centre appears, in image widths
STATE_SIZE = 33


class Readings(NamedTuple):
    """One moment's sensor readings. Joint arrays are (7,), positions (3,) in metres, forces in newton."""

    joint_positions: FloatArray  # rad
    joint_velocities: FloatArray  # rad/s
    joint_commands: FloatArray  # rad: what the controller last asked of the servos
    joint_torques: FloatArray  # N m, from motor currents, less the arm's own weight
    gripper_opening: float  # m between the pads
    grip_effort: float  # N, from the finger motor's current; closing is positive
    wrist_force: FloatArray  # (3,) N, tared with the empty hand
    tool_position: FloatArray  # by forward kinematics
    wrist_camera: Camera  # pose by forward kinematics
    action: FloatArray  # (4,) the last command, zeros before the first
    previous_action: FloatArray  # (4,) the one before
    front_patch: Patch | None
    previous_front_patch: Patch | None
    wrist_patch: Patch | None

    @property
    def tracking_error(self) -> float:
        """rad: how far the joints are from where they were asked to be."""
        return norm(self.joint_commands - self.joint_positions)

    @property
    def joint_effort(self) -> float:
        """N m."""
        return norm(self.joint_torques)


def norm(vector: FloatArray) -> float:
    """np.linalg.norm of a vector, to the bit, at a fifth of its cost."""
    return math.sqrt(vector.dot(vector))


def compute_signals(readings: Readings, disagreement: float) -> NDArray[np.float32]:
    """The twelve signals (12,) in the order of `workers.episodes.schema.SIGNALS`."""
    r = readings
    return np.array(
        [
            disagreement,
            norm(r.action),
            norm(r.action - r.previous_action),
            norm(r.joint_velocities),
            r.joint_effort,
            r.tracking_error,
            r.gripper_opening,
            r.grip_effort,
            norm(r.wrist_force),
            r.tool_position[2],
            _cube_offset(r.wrist_patch),
            _cube_motion(r.front_patch, r.previous_front_patch),
        ],
        dtype=np.float32,
    )


def compute_state(readings: Readings) -> NDArray[np.float32]:
    """Proprioception (33,): joint positions, velocities, commands (7 each), tool position (3), wrist force (3), gripper
    opening, grip effort, and the last action (4)."""
    r = readings
    return np.concatenate(
        [
            r.joint_positions,
            r.joint_velocities,
            r.joint_commands,
            r.tool_position,
            r.wrist_force,
            [r.gripper_opening, r.grip_effort],
            r.action,
        ]
    ).astype(np.float32)


def _cube_offset(patch: Patch | None) -> float:
    if patch is None:
        return CUBE_UNSEEN_OFFSET
    return float(np.hypot(patch.x - GRIPPER_IN_WRIST_IMAGE[0], patch.y - GRIPPER_IN_WRIST_IMAGE[1]))


def _cube_motion(now: Patch | None, before: Patch | None) -> float:
    if now is None or before is None:
        return 0.0
    return float(np.hypot(now.x - before.x, now.y - before.y))
