"""The arm-and-cube environment behind Gymnasium's API: pick a cube behind a low wall and hold it up, at 30 Hz.

Observation: `images` (3, 224, 224, 3) u8 in the order of `schema.CAMERAS`, `state` (33,) f32, `signals` (12,) f32. The
images' rows run backwards in memory: copy them for a library that asks for contiguous arrays.
Action: (4,) in −1 … 1, the tool's velocity as shares of 0.4 m/s and the fingers' wanted opening (1 open, −1 squeeze).
An episode is a pure function of the seed given to `reset` and of the actions.
"""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from workers.envs.arm import FINGER_TRAVEL_M, MAX_TOOL_SPEED, Arm
from workers.envs.ensemble import Ensemble, features
from workers.envs.failures import Judge, Truth
from workers.envs.perturbations import SHOVE_STEPS, Perturbation, plan
from workers.envs.pixels import Camera, CubeFinder, Patch
from workers.envs.signals import STATE_SIZE, Readings, compute_signals, compute_state
from workers.envs.simulator import SCENE, Cameras, load_mujoco
from workers.episodes.schema import ACTION_SIZE, CAMERAS, IMAGE_PIXELS, RATE_HZ, SIGNALS, SUCCESS

Observation = dict[str, NDArray[Any]]
# Streams of randomness of one episode: a new draw in one never shifts another.
WORLD, PERTURBATION, POLICY = range(3)
FRONT, WRIST = CAMERAS.index("front"), CAMERAS.index("wrist")
CUBE_X_M, CUBE_Y_M, CUBE_YAW = (0.40, 0.60), (0.06, 0.24), 0.35
START_M = np.array([0.48, -0.20, 0.165])
CUBE_MASS_KG, PAD_FRICTION = (0.10, 0.25), (0.5, 0.9)


def episode_rng(seed: int, stream: int) -> np.random.Generator:
    """The generator of one stream (WORLD, PERTURBATION, POLICY) of the episode with this seed."""
    return np.random.default_rng([seed, stream])


class ArmCubeEnv(gym.Env[Observation, NDArray[np.float32]]):
    """See the module's docstring. `info` of `reset` names the episode's seed and whether it is perturbed; `info` of the
    last step names its `outcome` (`schema.OUTCOMES`). Raises BadConfigError where no picture can be drawn."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": RATE_HZ}  # noqa: RUF012 - Gymnasium's own declaration

    def __init__(
        self,
        max_steps: int = 200,
        perturbed_share: float = 0.2,
        ensemble: Ensemble | None = None,
        render_mode: str | None = "rgb_array",
    ) -> None:
        self.max_steps, self.perturbed_share, self.render_mode = max_steps, perturbed_share, render_mode
        self.ensemble = ensemble or Ensemble.shipped()
        self._mujoco = load_mujoco()
        self.model = self._mujoco.MjModel.from_xml_path(str(SCENE))
        self.data = self._mujoco.MjData(self.model)
        self.arm = Arm(self._mujoco, self.model)
        self._cameras = Cameras(self._mujoco, self.model, self.data, CAMERAS, IMAGE_PIXELS)
        self._finder = CubeFinder(IMAGE_PIXELS, IMAGE_PIXELS)
        self.substeps = round(1 / RATE_HZ / self.model.opt.timestep)
        self._find_parts()
        box, images = gym.spaces.Box, (len(CAMERAS), IMAGE_PIXELS, IMAGE_PIXELS, 3)
        self.observation_space: gym.spaces.Dict = gym.spaces.Dict(  # type: ignore[assignment]
            images=box(0, 255, images, np.uint8),
            state=box(-np.inf, np.inf, (STATE_SIZE,), np.float32),
            signals=box(-np.inf, np.inf, (len(SIGNALS),), np.float32),
        )
        self.action_space = box(-1.0, 1.0, (ACTION_SIZE,), np.float32)

    def _find_parts(self) -> None:
        model, data, arm = self.model, self.data, self.arm
        self._pads = np.array([model.geom("left_pad").id, model.geom("right_pad").id])
        # These are views: they follow the simulation.
        self._joint_positions, self._fingers = data.qpos[arm.qpos], data.qpos[arm.fingers]
        self._joint_velocities, self._joint_torques = data.qvel[arm.dofs], data.actuator_force[arm.motors]
        self._grip_force, self._tool_position = data.actuator_force[arm.grip_motor, None], data.site_xpos[arm.tool]
        self._motor_commands, self._grip_command = data.ctrl[arm.motors], data.ctrl[arm.grip_motor, None]
        self._wrist_force = data.sensor("wrist_force").data
        wall, table = (model.sensor(name).adr[0] for name in ("arm_on_wall", "arm_on_table"))  # beside each other
        self._arm_forces = data.sensordata[wall : table + 3].reshape(2, 3)
        self._forces = np.empty((self.substeps, 2, 3))
        self._fingers_on_cube = [data.sensor(name).data for name in ("left_on_cube", "right_on_cube")]
        self._cube_qpos = model.joint("cube").qposadr[0]
        self._cube_position = data.qpos[self._cube_qpos : self._cube_qpos + 3]
        self._cube_body, self._hand_body = model.body("cube").id, model.body("hand").id
        self._cube_mass, self._cube_inertia = (
            model.body_mass[self._cube_body],
            model.body_inertia[self._cube_body].copy(),
        )
        self._camera_views = {name: self._camera_view(model.camera(name).id) for name in CAMERAS}

    # ---- Gymnasium's API

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        super().reset(seed=seed)
        self.episode_seed = int(self.np_random.integers(2**31)) if seed is None else int(seed)
        self.perturbation: Perturbation | None = plan(
            episode_rng(self.episode_seed, PERTURBATION), self.perturbed_share
        )
        self._judge = Judge(self.max_steps)
        self._outcome: str | None = None
        self._action = self._previous_action = np.zeros(ACTION_SIZE)
        self._front_patch: Patch | None = None
        self._place_world(episode_rng(self.episode_seed, WORLD))
        info = {"episode_seed": self.episode_seed, "perturbed": self.perturbation is not None}
        return self.observe(), info

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """One timestep of 1/30 s. After the end the world stands still and the last observation comes again.

        Raises ValueError for an action that is not finite.
        """
        if self._outcome is not None:
            return self.observe(), 0.0, True, False, {}
        parts = action.tolist()  # Python's floats: numpy takes longer for four
        if not all(map(math.isfinite, parts)):
            raise ValueError(f"The action {action} is not finite.")
        self._previous_action, self._action = self._action, np.array([min(max(p, -1.0), 1.0) for p in parts])
        self._front_patch = self.readings.front_patch
        self._outcome = self._judge.judge(self._simulate())
        ended = self._outcome is not None
        info: dict[str, Any] = {"outcome": self._outcome, "steps": self._judge.steps} if ended else {}
        return self.observe(), float(self._outcome == SUCCESS), ended, False, info

    def render(self) -> NDArray[np.uint8]:
        """The three cameras beside each other (224, 672, 3)."""
        return np.concatenate(list(self._cameras.draw()), axis=1)

    def close(self) -> None:
        self._cameras.close()

    # ---- sensing

    @property
    def front_camera(self) -> Camera:
        """The front camera's calibration."""
        return self._camera("front")

    def observe(self) -> Observation:
        """What the sensors show now. Calling it again changes nothing and gives the same bits."""
        images = self._cameras.draw()
        self.readings = self._read(images)
        self.disagreement = self.ensemble.disagreement(features(self.readings))
        return {
            "images": images,
            "state": compute_state(self.readings),
            "signals": compute_signals(self.readings, self.disagreement),
        }

    def _camera_view(self, camera: int) -> Camera:
        rotation, fovy = self.data.cam_xmat[camera].reshape(3, 3), self.model.cam_fovy[camera]
        return Camera(self.data.cam_xpos[camera], rotation, float(np.deg2rad(fovy)))

    def _camera(self, name: str) -> Camera:
        view = self._camera_views[name]
        return Camera(view.position.copy(), view.rotation.copy(), view.fovy)

    def _read(self, images: NDArray[np.uint8]) -> Readings:
        return Readings(
            joint_positions=self._joint_positions.copy(),
            joint_velocities=self._joint_velocities.copy(),
            joint_commands=self._command,  # these three are replaced each timestep, never written to
            joint_torques=self._joint_torques.copy(),
            gripper_opening=float(np.add.reduce(self._fingers)),
            grip_effort=-self._grip_force.item(),
            wrist_force=self._wrist_force - self._tare,
            tool_position=self._tool_position.copy(),
            wrist_camera=self._camera("wrist"),
            action=self._action,
            previous_action=self._previous_action,
            front_patch=self._finder.find(images[FRONT]),
            previous_front_patch=self._front_patch,
            wrist_patch=self._finder.find(images[WRIST]),
        )

    # ---- the world

    def _place_world(self, rng: np.random.Generator) -> None:
        model, data = self.model, self.data
        self._mujoco.mj_resetData(model, data)
        mass = rng.uniform(*CUBE_MASS_KG)
        model.body_mass[self._cube_body] = mass
        model.body_inertia[self._cube_body] = self._cube_inertia * (mass / self._cube_mass)
        self._pad_friction = rng.uniform(*PAD_FRICTION)
        model.geom_friction[self._pads, 0] = self._pad_friction
        yaw = rng.uniform(-CUBE_YAW, CUBE_YAW)
        cube = [rng.uniform(*CUBE_X_M), rng.uniform(*CUBE_Y_M), 0.02, np.cos(yaw / 2), 0.0, 0.0, np.sin(yaw / 2)]
        data.qpos[self._cube_qpos : self._cube_qpos + 7] = cube
        self._command = self.arm.place(data, START_M + rng.uniform(-0.02, 0.02, 3))
        self._motor_commands[:] = self._command
        self._grip_command[:] = FINGER_TRAVEL_M
        self._mujoco.mj_forward(model, data)
        self._tare = self._wrist_force.copy()

    def _simulate(self) -> Truth:
        model, data, arm = self.model, self.data, self.arm
        velocity = self._action[:3] * MAX_TOOL_SPEED
        self._command = arm.next_command(data, self._command, velocity, 1 / RATE_HZ)
        self._motor_commands[:] = self._command
        self._grip_command[:] = (self._action[3] + 1) / 2 * FINGER_TRAVEL_M
        if self.perturbation is not None:
            self._disturb(self.perturbation, self._judge.steps)
        mj_step, arm_forces = self._mujoco.mj_step, self._arm_forces
        for forces in self._forces:
            mj_step(model, data)
            forces[:] = arm_forces
        # Most timesteps touch nothing: a hundred numbers' square roots would cost more than asking.
        peak = float(np.sqrt(np.square(self._forces).sum(-1).max())) if self._forces.any() else 0.0
        self._mujoco.mj_forward(model, data)  # so that poses, forces and pictures belong to the same instant
        x, y, z = self._cube_position.tolist()
        fingers = sum(bool(found[0]) for found in self._fingers_on_cube)
        return Truth((x, y, z), fingers, peak)

    def _disturb(self, perturbation: Perturbation, step: int) -> None:
        self.data.xfrc_applied.fill(0.0)
        shove = perturbation.shove(step)
        if shove is not None and perturbation.kind == "arm_shove":
            self.data.xfrc_applied[self._hand_body, :3] = shove
        elif shove is not None:
            seconds = SHOVE_STEPS["cube_shove"] / RATE_HZ
            self.data.xfrc_applied[self._cube_body, :3] = shove * self.model.body_mass[self._cube_body] / seconds
        self.model.geom_friction[self._pads, 0] = self._pad_friction * perturbation.friction_share(step)
