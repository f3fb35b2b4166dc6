"""The environment together with its scripted policy: the observation also says what the policy would do."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from workers.envs.arm_cube import POLICY, ArmCubeEnv, Observation, episode_rng
from workers.envs.policy import ScriptedPolicy, draw_style


class ScriptedEpisode(gym.Wrapper[Observation, NDArray[np.float32], Observation, NDArray[np.float32]]):
    """Adds `policy_action` (4,) f32 to each observation: pass it to `step` to let the scripted policy drive.

    The policy's skill (0 to 1) is drawn from the episode's seed and told in `info` of `reset`.
    """

    def __init__(self, env: ArmCubeEnv, min_skill: float = 0.0) -> None:
        super().__init__(env)
        spaces = {**env.observation_space.spaces, "policy_action": env.action_space}
        self.observation_space: gym.spaces.Dict = gym.spaces.Dict(spaces)  # type: ignore[assignment]
        self._min_skill = min_skill

    @property
    def arm_cube(self) -> ArmCubeEnv:
        env = self.unwrapped
        assert isinstance(env, ArmCubeEnv)
        return env

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed, options=options)
        rng = episode_rng(info["episode_seed"], POLICY)
        skill = self._min_skill + (1.0 - self._min_skill) * rng.random()
        self.policy = ScriptedPolicy(draw_style(skill, rng), rng, self.arm_cube.front_camera)
        return self._with_action(observation), {**info, "skill": skill}

    def step(self, action: NDArray[np.float32]) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._with_action(observation), float(reward), terminated, truncated, info

    def _with_action(self, observation: Observation) -> Observation:
        return {**observation, "policy_action": self.policy.act(self.arm_cube.readings)}
