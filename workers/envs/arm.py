"""The arm's controller: a Cartesian velocity of the tool becomes joint commands (resolved-rate control), from encoders.

Source: Whitney, "Resolved motion rate control of manipulators and human prostheses", 1969; damping after Wampler, 1986.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

JOINTS = tuple(f"joint{i}" for i in range(1, 8))
FINGERS = ("left_finger", "right_finger")
HOME = np.array([0.0, 0.1, 0.0, -2.2, 0.0, 2.3, np.pi / 4])  # rad: elbow up, tool pointing down
FINGER_TRAVEL_M = 0.04
MAX_TOOL_SPEED = 0.4  # m/s at an action of 1
DAMPING = 0.02
POSTURE_GAIN = 1.0  # 1/s, in the null space
UPRIGHT_GAIN = 5.0  # 1/s: how fast the tool is turned back to pointing down
MAX_LEAD = 0.15  # rad by which a command may run ahead of its joint: what a stalled arm presses with
DAMPED = DAMPING**2 * np.eye(6)

FloatArray = NDArray[np.float64]


class Arm:
    """Indices of the arm in one model, and its kinematics. Holds no state of an episode."""

    def __init__(self, mujoco: Any, model: Any) -> None:
        self._mujoco, self._model = mujoco, model
        self.qpos = _stretch([model.joint(name).qposadr[0] for name in JOINTS])
        self._columns = np.array([model.joint(name).dofadr[0] for name in JOINTS])  # a copy, whose layout decides bits
        self.dofs = _stretch(self._columns.tolist())
        self.fingers = _stretch([model.joint(name).qposadr[0] for name in FINGERS])
        self.motors = _stretch([model.actuator(name).id for name in JOINTS])
        self.grip_motor = model.actuator("grip").id
        self.tool = model.site("tool").id
        self.limits = np.array([model.joint(name).range for name in JOINTS]).T  # (2, 7) rad
        self._jacobian = np.zeros((6, model.nv))

    def next_command(self, data: Any, command: FloatArray, velocity: FloatArray, seconds: float) -> FloatArray:
        """Joint commands (7,) after moving the tool with `velocity` (3,) m/s for `seconds`, tool pointing down."""
        self._mujoco.mj_jacSite(self._model, data, self._jacobian[:3], self._jacobian[3:], self.tool)
        jacobian = self._jacobian[:, self._columns]
        rotation = data.site_xmat[self.tool].reshape(3, 3)
        (_, r01, r02), (r10, _, r12), (r20, r21, _) = rotation.tolist()
        tilt = (
            r21 - r12,
            r20 + r02,
            -r10 - r01,
        )  # the columns' cross products with x, -y, -z, summed: 0 when the tool points down
        twist = np.array(velocity.tolist() + [UPRIGHT_GAIN * (0.5 * part) for part in tilt])
        inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + DAMPED)
        measured = data.qpos[self.qpos]
        posture = POSTURE_GAIN * (HOME - measured)
        speeds = inverse @ twist + posture - inverse @ (jacobian @ posture)
        wanted = _between(command + speeds * seconds, measured - MAX_LEAD, measured + MAX_LEAD)
        return _between(wanted, *self.limits)

    def place(self, data: Any, position: FloatArray) -> FloatArray:
        """Put the tool at `position` (3,) m, fingers open, and return the joint positions (7,) rad."""
        data.qpos[self.qpos] = HOME
        data.qpos[self.fingers] = FINGER_TRAVEL_M
        for _ in range(60):
            self._mujoco.mj_kinematics(self._model, data)
            self._mujoco.mj_comPos(self._model, data)
            error = position - data.site_xpos[self.tool]
            joints = data.qpos[self.qpos].copy()
            data.qpos[self.qpos] = self.next_command(data, joints, error * 5.0, 0.1)
        return data.qpos[self.qpos].copy()


def _stretch(places: list[int]) -> slice:
    """Places beside each other as a slice, which gives views that follow the simulation and costs less than copies."""
    first, last = int(places[0]), int(places[-1])
    if [int(place) for place in places] != list(range(first, last + 1)):
        raise ValueError(f"The scene keeps {places} apart; they must lie beside each other.")
    return slice(first, last + 1)


def _between(values: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """np.clip at a third of its cost for a few numbers."""
    return np.minimum(np.maximum(values, low), high)
