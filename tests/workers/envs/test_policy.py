"""The scripted policy: drawn once from skill and seed, worse with less skill."""

import numpy as np

from workers.envs.policy import Style, draw_style


def styles(skill: float) -> list[Style]:
    return [draw_style(skill, np.random.default_rng(seed)) for seed in range(400)]


def test_the_same_skill_and_seed_give_the_same_style() -> None:
    assert styles(0.4) == styles(0.4)


def test_less_skill_aims_worse_flies_lower_moves_slower_and_holds_looser() -> None:
    good, bad = styles(0.95), styles(0.05)
    assert np.mean([np.hypot(*s.aim) for s in bad]) > 2 * np.mean([np.hypot(*s.aim) for s in good])
    assert np.mean([s.margin < 0 for s in bad]) > np.mean([s.margin < 0 for s in good])
    assert np.mean([s.speed for s in bad]) < np.mean([s.speed for s in good]) - 0.1
    assert np.mean([s.loosening > 0 for s in bad]) > np.mean([s.loosening > 0 for s in good]) + 0.3
    assert np.mean([s.squeeze for s in bad]) < np.mean([s.squeeze for s in good])


def test_every_policy_moves() -> None:
    assert min(style.speed for skill in (0.0, 0.5, 1.0) for style in styles(skill)) > 0.05
