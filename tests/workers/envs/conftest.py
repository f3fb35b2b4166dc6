"""One environment for the whole file that asks for it: building one costs more than an episode's first steps."""

from collections.abc import Iterator

import numpy as np
import pytest

from workers.envs.arm_cube import ArmCubeEnv
from workers.envs.scripted import ScriptedEpisode


@pytest.fixture(scope="module")
def env() -> Iterator[ScriptedEpisode]:
    """A scripted environment without chance perturbations."""
    scripted = ScriptedEpisode(ArmCubeEnv(perturbed_share=0.0), min_skill=0.95)
    yield scripted
    scripted.close()


@pytest.fixture(scope="module")
def skilled_episode(env: ScriptedEpisode) -> dict[str, np.ndarray]:
    """One whole episode of a skilled policy: arrays by name, and its outcome."""
    observation, _ = env.reset(seed=3)
    rows, ended, info = [observation], False, {}
    while not ended:
        observation, _, ended, _, info = env.step(observation["policy_action"])
        rows.append(observation)
    arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    return {**arrays, "outcome": np.array(info["outcome"])}
