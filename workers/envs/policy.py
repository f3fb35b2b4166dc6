"""A scripted pick-and-lift policy that sees only what the robot senses, with a skill drawn an episode.

It flies over the wall to the cube that the cameras show, goes down, closes, lifts and holds; where the fingers close
on nothing it opens and tries again. What it does badly, and how badly, is its `Style`: drawn from the skill.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from workers.envs.arm import MAX_TOOL_SPEED
from workers.envs.pixels import Camera, on_plane
from workers.envs.signals import Readings, norm

FloatArray = NDArray[np.float64]
CUBE_CENTRE_M = 0.02
WALL_TOP_M = 0.10
FINGERTIP_BELOW_TOOL_M = 0.013
LIFT_TO_M = 0.20
GAIN = 6.0  # 1/s: how fast a position error is closed
EMPTY_GRIP_M = 0.03  # an opening below this holds nothing
ALIGNED_M = 0.010
JITTER = 0.02  # of each action, standard deviation
MIN_CLOSE_STEPS = 4
MAX_CLOSE_STEPS = 20


@dataclass(frozen=True)
class Style:
    """How one episode's policy behaves; all of it is drawn once from the skill."""

    speed: float  # share of the full speed
    margin: float  # m between the fingertips and the wall's top
    aim: tuple[float, float]  # m added to where the cube is seen
    squeeze: float  # share of the full grip
    loosening: float  # of the squeeze lost a timestep while lifting
    close_steps: int  # timesteps that the fingers are given to close
    grasp_height: float  # m of the tool over the table when it closes


def draw_style(skill: float, rng: np.random.Generator) -> Style:
    """A style for a skill of 0 to 1. Each weakness has its own chance, which grows as the skill falls."""
    weakness = 1.0 - skill
    slow, low, loose, early, high = rng.random(5)
    aim = rng.normal(size=2) * (0.002 + 0.008 * weakness)
    speed = 1.0 - 0.25 * rng.random() - (0.33 + 0.33 * rng.random() if slow < 0.28 + 0.5 * weakness else 0.0)
    margin = 0.055 + 0.01 * rng.random() - (0.085 * rng.random() if low < 0.62 * weakness else 0.0)
    loosening = 0.02 + 0.03 * rng.random() if loose < 0.2 + 0.55 * weakness else 0.0
    squeeze = 0.9 - 0.4 * weakness * rng.random()
    close_steps = MIN_CLOSE_STEPS if early < 0.3 * weakness else 9
    grasp_height = 0.018 + (0.016 * weakness * rng.random() if high < 0.6 else 0.0)
    return Style(speed, margin, (float(aim[0]), float(aim[1])), squeeze, loosening, close_steps, grasp_height)


class Phase(Enum):
    REACH = auto()
    DESCEND = auto()
    CLOSE = auto()
    LIFT = auto()
    RETRY = auto()


class ScriptedPolicy:
    """One episode's policy. `act` must be called once a timestep; the same seed and readings give the same actions."""

    def __init__(self, style: Style, rng: np.random.Generator, front_camera: Camera, jitter: float = JITTER) -> None:
        self.style = style
        self.phase = Phase.REACH
        self._rng = rng
        self._jitter = jitter
        self._front_camera = front_camera
        self._target: FloatArray | None = None
        self._waited = 0
        self._squeeze = style.squeeze

    def act(self, readings: Readings) -> NDArray[np.float32]:
        """The action (4,) in −1 … 1: the tool's velocity as shares of 0.4 m/s, and the fingers' wanted opening."""
        self._look(readings)
        steps = {
            Phase.REACH: self._reach,
            Phase.DESCEND: self._descend,
            Phase.CLOSE: self._close,
            Phase.LIFT: self._lift,
            Phase.RETRY: self._retry,
        }
        action = steps[self.phase](readings)
        action[:3] += self._rng.normal(size=3) * self._jitter
        return np.minimum(np.maximum(action, -1.0), 1.0).astype(np.float32)

    @property
    def _path_height(self) -> float:
        return WALL_TOP_M + FINGERTIP_BELOW_TOOL_M + self.style.margin

    def _look(self, readings: Readings) -> None:
        """Keep in mind where the cube was last seen: from the front until the wrist camera sees it close below."""
        if self.phase not in (Phase.REACH, Phase.DESCEND, Phase.RETRY):
            return
        if self.phase is Phase.DESCEND and readings.tool_position[2] < 0.06:
            return  # the fingers hide the cube's sides from here on, its patch would pull the aim aside
        seen = None
        if readings.wrist_patch is not None and readings.wrist_patch.area > 0.004:
            seen = on_plane(readings.wrist_patch, readings.wrist_camera, CUBE_CENTRE_M)
        elif readings.front_patch is not None:
            seen = on_plane(readings.front_patch, self._front_camera, CUBE_CENTRE_M)
        if seen is not None:
            seen = seen + np.array(self.style.aim)
            self._target = seen if self._target is None else 0.6 * self._target + 0.4 * seen

    def _go(self, readings: Readings, target: FloatArray, pace: float, opening: float) -> FloatArray:
        speed = self.style.speed * pace
        wanted = GAIN * self.style.speed * (target - readings.tool_position) / MAX_TOOL_SPEED
        across = norm(wanted[:2])
        if across > speed:
            wanted[:2] *= speed / across
        x, y, z = wanted.tolist()
        return np.array([x, y, min(max(z, -speed), speed), opening])

    def _over_cube(self, readings: Readings, height: float) -> FloatArray:
        aim = readings.tool_position if self._target is None else self._target
        return _at_height(aim, height)

    def _reach(self, readings: Readings) -> FloatArray:
        target = self._over_cube(readings, self._path_height)
        if self._target is not None and norm(target[:2] - readings.tool_position[:2]) < ALIGNED_M:
            self.phase = Phase.DESCEND
        return self._go(readings, target, 0.9, 1.0)

    def _descend(self, readings: Readings) -> FloatArray:
        target = self._over_cube(readings, self.style.grasp_height)
        if readings.tool_position[2] < self.style.grasp_height + 0.004:
            self.phase, self._waited, self._squeeze = Phase.CLOSE, 0, self.style.squeeze
        return self._go(readings, target, 0.5, 1.0)

    def _close(self, readings: Readings) -> FloatArray:
        self._waited += 1
        if self._waited >= self.style.close_steps / max(self.style.speed, 0.5):
            self.phase = Phase.RETRY if readings.gripper_opening < EMPTY_GRIP_M else Phase.LIFT
        return np.array([0.0, 0.0, 0.0, -self.style.squeeze])

    def _lift(self, readings: Readings) -> FloatArray:
        if readings.gripper_opening < EMPTY_GRIP_M:
            self.phase = Phase.RETRY
        self._squeeze = max(self._squeeze - self.style.loosening * self.style.speed, -0.2)
        target = _at_height(readings.tool_position, LIFT_TO_M)
        return self._go(readings, target, 0.45, -self._squeeze)

    def _retry(self, readings: Readings) -> FloatArray:
        target = _at_height(readings.tool_position, self._path_height)
        if readings.tool_position[2] > self._path_height - 0.02:
            self.phase = Phase.REACH
        return self._go(readings, target, 0.6, 1.0)


def _at_height(position: FloatArray, height: float) -> FloatArray:
    """Over or under `position` (2 or 3,) m, at `height` m."""
    return np.array([position[0], position[1], height])
