"""The ensemble: real members, the same bits for the same state, wider where nothing was demonstrated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.envs.ensemble import FEATURES, MEMBERS, WEIGHTS, Ensemble
from workers.envs.fit_ensemble import fit

ENSEMBLE = Ensemble.shipped()


def test_the_shipped_weights_are_small() -> None:
    assert WEIGHTS.stat().st_size < 300_000


def test_the_members_differ() -> None:
    actions = ENSEMBLE.actions(ENSEMBLE.mean)
    assert actions.shape == (MEMBERS, 4)
    assert len({row.tobytes() for row in actions}) == MEMBERS


@given(st.lists(st.floats(-3, 3), min_size=FEATURES, max_size=FEATURES))
@settings(max_examples=50, deadline=None)
def test_the_same_state_gives_the_same_disagreement(standard: list[float]) -> None:
    inputs = ENSEMBLE.mean + ENSEMBLE.scale * np.array(standard)
    others = np.random.default_rng(0).normal(size=(3, FEATURES))
    first = ENSEMBLE.disagreement(inputs)
    for other in others:  # whatever is asked in between
        ENSEMBLE.disagreement(other)
    assert ENSEMBLE.disagreement(inputs.copy()) == first


def test_disagreement_is_the_spread_of_the_members_actions() -> None:
    inputs = ENSEMBLE.mean + ENSEMBLE.scale
    actions = ENSEMBLE.actions(inputs)
    spread = np.sqrt(((actions - actions.mean(0)) ** 2).mean(0)).mean()
    assert ENSEMBLE.disagreement(inputs) == pytest.approx(spread, rel=1e-12)


def test_members_disagree_more_where_nothing_was_demonstrated(skilled_episode: dict[str, np.ndarray]) -> None:
    demonstrated = float(np.median(skilled_episode["signals"][:, 0]))
    rng = np.random.default_rng(1)
    far = [ENSEMBLE.disagreement(ENSEMBLE.mean + 4 * ENSEMBLE.scale * rng.choice([-1, 1], FEATURES)) for _ in range(50)]
    assert np.median(far) > 3 * demonstrated


def test_a_fit_is_repeatable() -> None:
    rng = np.random.default_rng(2)
    inputs, actions = rng.normal(size=(200, FEATURES)), rng.normal(size=(200, 4))
    first, second = fit(inputs, actions), fit(inputs, actions)
    assert {name: value.tobytes() for name, value in first.items()} == {n: v.tobytes() for n, v in second.items()}
