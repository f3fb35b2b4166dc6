"""Collect with a fake simulator: run by test_collect.py in processes of its own, which it may kill.

Everything but the simulator is the workers' program. An episode is a pure function of its seed, as the real one is.
"""

import os
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np

from workers.episodes.schema import IMAGE_PIXELS, OUTCOMES

Box = gym.spaces.Box


class FakeEnv(gym.Env):
    """Three to eight timesteps of moving noise; each takes `step_seconds`."""

    def __init__(self, step_seconds):
        self.step_seconds = step_seconds
        images = (3, IMAGE_PIXELS, IMAGE_PIXELS, 3)
        self.action_space = Box(-1, 1, (4,), np.float32)
        self.observation_space = gym.spaces.Dict(
            images=Box(0, 255, images, np.uint8),
            state=Box(-np.inf, np.inf, (5,), np.float32),
            signals=Box(-np.inf, np.inf, (12,), np.float32),
            policy_action=self.action_space,
        )

    def reset(self, *, seed=None, options=None):
        self.rng = np.random.default_rng(seed)
        self.left = int(self.rng.integers(3, 9))
        self.outcome = OUTCOMES[int(self.rng.integers(len(OUTCOMES)))]
        self.tiles = self.rng.integers(0, 255, (3, 28, 28, 3), np.uint8).repeat(8, axis=1).repeat(8, axis=2)
        return self.observe(), {"perturbed": bool(self.rng.random() < 0.2)}

    def step(self, action):
        if self.left == 0:
            return self.last, 0.0, True, False, {}
        time.sleep(self.step_seconds)
        self.left -= 1
        ended = self.left == 0
        return self.observe(), 0.0, ended, False, {"outcome": self.outcome} if ended else {}

    def observe(self):
        self.last = {
            "images": np.roll(self.tiles, 8 * self.left, axis=1),
            "state": self.rng.normal(size=5).astype(np.float32),
            "signals": self.rng.normal(size=12).astype(np.float32),
            "policy_action": self.rng.uniform(-1, 1, 4).astype(np.float32),
        }
        return self.last


def main(config: str, env: dict[str, str], log: str, step_seconds: float) -> int:
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.environ.update(env)

    from gymnasium.vector import AutoresetMode, SyncVectorEnv

    from workers import loop
    from workers.envs import vector

    class FakeVectorEnv(SyncVectorEnv):
        def step(self, actions):
            self._autoreset_envs[:] = False  # as AsyncVectorEnv: an environment that has ended may stand still
            return super().step(actions)

    def make_vector(n, settings):
        makers = [lambda: FakeEnv(step_seconds)] * n
        return FakeVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED, copy=False)

    vector.make_vector = make_vector
    return loop.main("collect", Path(config))


if __name__ == "__main__":
    sys.exit(main(**ARGUMENTS))  # noqa: F821 - given by runpy
