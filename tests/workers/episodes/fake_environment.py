"""A simulator that takes no time but what it is told to, for tests that start, stop and kill the workers' program."""

import errno
import os
import signal
import time

import gymnasium as gym
import numpy as np

from workers.episodes import recorder
from workers.episodes.schema import IMAGE_PIXELS, OUTCOMES
from workers.errors import BadConfigError

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
        time.sleep(self.step_seconds)
        self.left -= 1
        ended = self.left == 0
        return self.observe(), 0.0, ended, False, {"outcome": self.outcome} if ended else {}

    def observe(self):
        return {
            "images": np.roll(self.tiles, 8 * self.left, axis=1),
            "state": self.rng.normal(size=5).astype(np.float32),
            "signals": self.rng.normal(size=12).astype(np.float32),
            "policy_action": self.rng.uniform(-1, 1, 4).astype(np.float32),
        }


class Together(FakeEnv):
    """Takes its first timestep when `count` simulators do: none is through before the last has begun."""

    def __init__(self, directory, count=2):
        super().__init__(0.0)
        self.directory, self.count = directory, count

    def step(self, action):
        (self.directory / f"simulator.{os.getpid()}").touch()
        while len([*self.directory.glob("simulator.*")]) < self.count:
            time.sleep(0.01)
        return super().step(action)


class Troubled(FakeEnv):
    """Calls `troubles[seed]` in the first timestep of that seed's episode."""

    def __init__(self, troubles, step_seconds=0.0):
        super().__init__(step_seconds)
        self.troubles = troubles

    def reset(self, *, seed=None, options=None):
        self.trouble = self.troubles.get(seed)
        return super().reset(seed=seed, options=options)

    def step(self, action):
        if self.trouble is not None:
            self.trouble()
        return super().step(action)


class UnsendableError(Exception):
    """Can't be made from its arguments."""

    def __init__(self, first, second):
        super().__init__(f"of {first}")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def divide():
    1 / 0  # noqa: B018


def raise_unsendable():
    raise UnsendableError(1, 2)


def stand_still(sign, pipe):
    """Makes the file `sign`, which says so, and waits, not a line of Python meanwhile, for a byte in a named pipe."""
    sign.touch()
    descriptor = os.open(pipe, os.O_RDWR)
    os.read(descriptor, 1)
    os.close(descriptor)


def slow_to_make(enough):
    """At work until this file is there."""
    while not enough.exists():
        sum(range(10_000))
    return FakeEnv(0.0)


def without_a_renderer():
    raise BadConfigError("no pictures")


def on_a_full_disk():
    """An environment whose process finds the disk full twice."""
    real, tries = recorder.write_episode, []

    def write(*arguments):
        tries.append(arguments)
        if len(tries) <= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    recorder.write_episode, recorder.RETRY_SECONDS, recorder.POLL_SECONDS = write, 0.05, 0.01
    return FakeEnv(0.0)
