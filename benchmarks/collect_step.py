"""Claim: sensors, signals and ensemble cost little beside the simulator itself, and the scripted policy little more.

Ours: timesteps of scripted, undisturbed episodes, without the policy and then with it. Baseline: the bare simulator,
which starts from the same state, is given the same motor commands and draws three pictures a timestep with
mujoco.Renderer, with nothing read from it: so both simulate the same contacts and see the same scene. Both are timed by
the processor time that they take, a few timesteps of one and then the same of the other: what else the machine does
meanwhile slows both alike.
"""

import time
from functools import partial
from typing import Any

from paired import Way, compare

from workers.envs.arm_cube import ArmCubeEnv
from workers.envs.scripted import ScriptedEpisode
from workers.envs.simulator import leave_out_hidden, load_mujoco
from workers.episodes.schema import CAMERAS, IMAGE_PIXELS

STEPS = 10


class Both:
    """One episode after the other, stepped by the environment; what the bare loop needs to follow it."""

    def __init__(self) -> None:
        self._mujoco = load_mujoco()
        self._env = ScriptedEpisode(ArmCubeEnv(perturbed_share=0.0))
        self._model, self._data = self._env.arm_cube.model, self._env.arm_cube.data
        self._seeds, self._ended = iter(range(1, 1_000_000)), True
        self._start = self._mujoco.MjData(self._model)
        self._commands: list[Any] = []
        self._renderer = self._mujoco.Renderer(self._model, IMAGE_PIXELS, IMAGE_PIXELS)
        leave_out_hidden(self._mujoco, self._renderer.scene)

    def follow(self, with_policy: bool) -> float:
        if self._ended:
            self._action = self._env.reset(seed=next(self._seeds))[0]["policy_action"]
        self._mujoco.mj_copyData(self._start, self._model, self._data)
        self._commands.clear()
        seconds, self._ended = 0.0, False
        while len(self._commands) < STEPS and not self._ended:
            start = time.process_time()
            _, _, self._ended, _, _ = self._env.arm_cube.step(self._action)
            stepped = time.process_time()
            self._action = self._env.policy.act(self._env.arm_cube.readings)
            seconds += (time.process_time() if with_policy else stepped) - start
            self._commands.append(self._data.ctrl.copy())
        return len(self._commands) / seconds

    def bare(self) -> float:
        mujoco, model, data = self._mujoco, self._model, self._start
        substeps = self._env.arm_cube.substeps
        start = time.process_time()
        for command in self._commands:
            data.ctrl = command
            mujoco.mj_step(model, data, substeps)
            for camera in CAMERAS:
                self._renderer.update_scene(data, camera)
                self._renderer.render()
        return len(self._commands) / (time.process_time() - start)


if __name__ == "__main__":
    both = Both()
    bare = Way("bare simulator with three cameras", both.bare)
    for name, with_policy in (("environment", False), ("environment and policy", True)):
        ours = Way(name, partial(both.follow, with_policy))
        compare("timesteps a processor second, one process", ours, bare, unit="timesteps/s", runs=300)
