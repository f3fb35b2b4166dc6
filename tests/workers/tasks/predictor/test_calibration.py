"""Calibration: the error of who is right about the odds falls to 0, and the curve hides nothing."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workers.tasks.predictor import metrics
from workers.tasks.predictor.calibration import BINS, Reliability, reliability


def curve(probabilities: np.ndarray, labels: np.ndarray, episodes: int = 10) -> Reliability:
    weights = metrics.resampled(episodes, 200, np.random.default_rng(0))
    return reliability(np.array_split(probabilities, episodes), np.array_split(labels, episodes), weights, 0.95)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 3.0, 8.0]))
def test_the_error_of_a_calibrated_predictor_falls_to_0(seed, rarity):
    random = np.random.default_rng(seed)
    errors = []
    for samples in (1_000, 100_000):
        probabilities = random.random(samples) ** rarity
        errors.append(curve(probabilities, random.random(samples) < probabilities).error)

    assert errors[1] < 0.01  # ten bins of 10,000 answers: deviations below 0.005 each
    assert errors[1] < errors[0] + 0.005


@given(st.integers(0, 2**32 - 1), st.floats(0.05, 0.4))
def test_a_predictor_that_says_too_much_everywhere_is_off_by_just_that(seed, excess):
    random = np.random.default_rng(seed)
    truth = random.random(50_000) * 0.6

    assert curve(truth + excess, random.random(50_000) < truth).error == pytest.approx(excess, abs=0.01)


@given(
    hnp.arrays(np.float32, 60, elements=st.sampled_from([0.0, 1e-4, 0.01, 0.125, 0.5, 1.0])),
    hnp.arrays(np.uint8, 60, elements=st.integers(0, 1)),
)
def test_bins_part_all_answers_by_probability_and_equals_share_one(probabilities, labels):
    found = curve(probabilities, labels)

    assert found.answers.sum() == 60 and len(found.answers) <= BINS
    assert (found.answers * found.observed).sum() == pytest.approx(labels.sum())
    assert (found.answers * found.predicted).sum() == pytest.approx(probabilities.sum(dtype=np.float64))
    assert (np.diff(found.predicted) > 0).all()
    assert 0 <= found.error <= 1


@given(st.floats(0, 1), hnp.arrays(np.uint8, 40, elements=st.integers(0, 1)))
def test_one_probability_for_all_is_one_bin_however_labels_are_ordered(probability, labels):
    found = curve(np.full(40, probability), labels)

    assert found.error == pytest.approx(abs(probability - labels.mean()))


@pytest.mark.parametrize("repeat", [2, 5])
def test_repeating_each_timestep_leaves_curve_and_intervals_unchanged(repeat):
    random = np.random.default_rng(1)
    probabilities = random.integers(0, 8, 400) / 8
    labels = random.random(400) < probabilities

    once, often = (curve(np.repeat(probabilities, n), np.repeat(labels, n)) for n in (1, repeat))

    for name in ("predicted", "observed", "low", "high"):
        np.testing.assert_allclose(getattr(once, name), getattr(often, name))
