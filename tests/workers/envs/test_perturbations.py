"""Perturbations: their share, their physics, and that the plan is the seed's alone."""

from collections import Counter

import numpy as np
import pytest

from workers.envs.arm_cube import PERTURBATION, ArmCubeEnv, episode_rng
from workers.envs.perturbations import KINDS, Perturbation, plan
from workers.envs.scripted import ScriptedEpisode


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
def test_the_share_of_perturbed_episodes_is_as_asked(share: float) -> None:
    plans = [plan(episode_rng(seed, PERTURBATION), share) for seed in range(2000)]
    assert np.mean([each is not None for each in plans]) == pytest.approx(share, abs=0.03 if 0 < share < 1 else 0)


def test_each_kind_occurs() -> None:
    kinds = Counter(each.kind for seed in range(300) if (each := plan(episode_rng(seed, PERTURBATION), 1.0)))
    assert set(kinds) == set(KINDS)
    assert min(kinds.values()) > 20


def test_the_same_seed_gives_the_same_plan() -> None:
    assert [plan(episode_rng(s, PERTURBATION), 0.5) for s in range(50)] == [
        plan(episode_rng(s, PERTURBATION), 0.5) for s in range(50)
    ]


def after(env: ScriptedEpisode, perturbation: Perturbation | None, steps: int) -> ArmCubeEnv:
    observation, _ = env.reset(seed=6)
    env.arm_cube.perturbation = perturbation
    for _ in range(steps):
        observation, *_ = env.step(observation["policy_action"])
    return env.arm_cube


def test_a_shove_on_the_cube_gives_it_the_planned_speed(env: ScriptedEpisode) -> None:
    world = after(env, Perturbation("cube_shove", 0, 1.2, (0.0, 1.0, 0.0)), 4)
    friction = 0.25 * 9.81 * 4 / 30  # the most that sliding on the table can take in 4 timesteps
    assert 1.2 - friction < world.data.joint("cube").qvel[1] < 1.2


def test_a_shove_on_the_arm_moves_the_hand(env: ScriptedEpisode) -> None:
    calm = after(env, None, 6).readings.tool_position
    shoved = after(env, Perturbation("arm_shove", 0, 120.0, (0.0, 1.0, 0.0)), 6).readings.tool_position
    assert 0.003 < shoved[1] - calm[1] < 0.2


def test_wet_pads_keep_the_planned_share_of_friction(env: ScriptedEpisode) -> None:
    dry = after(env, None, 30).model.geom("left_pad").friction[0]
    wet = after(env, Perturbation("slippery", 5, 0.2, (0.0, 0.0, 0.0)), 30).model.geom("left_pad").friction[0]
    assert wet == pytest.approx(0.2 * dry)
