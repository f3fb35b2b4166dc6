"""Figures of predictions, held against scikit-learn's, and intervals that count episodes."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import f1_score, precision_score, recall_score

from workers.tasks.predictor import metrics

labels = hnp.arrays(np.uint8, (12, 4, 4), elements=st.integers(0, 1))
# few values: ties are where thresholds go wrong
probabilities = hnp.arrays(np.float32, (12, 4, 4), elements=st.sampled_from([0.0, 0.125, 0.25, 0.5, 0.75, 1.0]))


@given(probabilities, labels, st.sampled_from([0.1, 0.25, 0.5, 0.9]))
def test_figures_are_the_ones_of_scikit_learn_and_absent_where_it_warns(probabilities, labels, threshold):
    found = metrics.figures(metrics.counts(probabilities, labels, threshold))

    said, true = (probabilities >= threshold).reshape(12, 16), labels.reshape(12, 16)
    for name, score in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
        expected = score(true, said, average="micro", zero_division=np.nan)
        assert found[name] == (None if np.isnan(expected) else pytest.approx(expected))


@given(probabilities, labels, st.sampled_from([0.5, 1.0, 1.5, 2.0]))
def test_no_threshold_has_a_higher_f_beta_than_the_chosen_one(probabilities, labels, beta):
    def f_beta(threshold: float) -> float:
        found = metrics.figures(metrics.counts(probabilities, labels, threshold))
        precision, recall = found["precision"] or 0.0, found["recall"] or 0.0
        below = beta**2 * precision + recall
        return (1 + beta**2) * precision * recall / below if below else 0.0

    threshold, score = metrics.best_threshold(probabilities, labels, beta)

    assert score == pytest.approx(max(map(f_beta, np.unique(probabilities))))
    assert f_beta(threshold) == pytest.approx(score)


@given(probabilities, labels)
def test_with_beta_1_it_is_f1(probabilities, labels):
    threshold, score = metrics.best_threshold(probabilities, labels)

    assert (metrics.figures(metrics.counts(probabilities, labels, threshold))["f1"] or 0.0) == pytest.approx(score)


def test_each_group_pools_the_outputs_that_it_names():
    counted = np.arange(48).reshape(4, 4, 3)
    horizons = ["horizon_6", "horizon_9", "horizon_12", "horizon_15"]
    failures = ["drop", "timeout", "collision", "other"]

    pooled = {group.key: counted[group.outputs].sum(0) for group in metrics.groups()}

    rest = [f"{horizon}_without_timeout" for horizon in horizons]
    assert list(pooled) == ["micro", *horizons, *failures, "without_timeout", *rest]
    for parts, whole in ((horizons, "micro"), (failures, "micro"), (rest, "without_timeout")):
        np.testing.assert_array_equal(sum(pooled[key] for key in parts), pooled[whole])
    np.testing.assert_array_equal(pooled["micro"] - pooled["timeout"], pooled["without_timeout"])


def random_episodes(repeat: int) -> np.ndarray:
    """Counts of 20 episodes, each timestep `repeat` times."""
    random = np.random.default_rng(5)
    counted = []
    for length in random.integers(20, 60, 20):
        truth = random.random((length, 4, 4)) < 0.1
        answers = np.clip(truth * 0.4 + random.random((length, 4, 4)) * 0.6, 0, 1)
        counted.append(metrics.counts(np.repeat(answers, repeat, 0), np.repeat(truth, repeat, 0), 0.5))
    return np.stack(counted)


@pytest.mark.parametrize("repeat", [2, 7])
def test_repeating_each_timestep_leaves_the_intervals_unchanged(repeat):
    weights = metrics.resampled(20, 500, np.random.default_rng(1))

    once, often = (metrics.intervals(random_episodes(times), weights, 0.95) for times in (1, repeat))

    assert once == often
    assert all(low < high for low, high in once.values())


def test_an_interval_is_wider_with_fewer_episodes():
    counted = random_episodes(1)

    (low, high), (wide_low, wide_high) = (
        metrics.intervals(some, metrics.resampled(len(some), 2000, np.random.default_rng(1)), 0.95)["f1"]
        for some in (counted, counted[:4])
    )

    assert wide_high - wide_low > high - low


def test_what_is_undefined_has_no_interval():
    nothing = np.zeros((5, 4, 4, 3), dtype=np.int64)

    assert metrics.intervals(nothing, metrics.resampled(5, 100, np.random.default_rng(0)), 0.95) == {}
    assert metrics.gain(nothing, nothing, metrics.resampled(5, 100, np.random.default_rng(0)), 0.95) == (None,) * 3
    assert json.dumps(metrics.figures(nothing)) == '{"precision": null, "recall": null, "f1": null}'


def test_a_predictor_has_no_gain_over_itself_and_one_over_a_worse_one_that_pairing_makes_sure_of():
    random, weights = np.random.default_rng(5), metrics.resampled(20, 1000, np.random.default_rng(1))
    easy = random.random((20, 1, 1)) * np.ones((20, 4, 4))  # how hard an episode is for both
    good, worse = (np.stack([100 * easy, (20 + more) * (1 - easy), 100 * (1 - easy)], axis=-1) for more in (0, 12))

    assert metrics.gain(good, good, weights, 0.95) == (0, 0, 0)
    gain, low, high = metrics.gain(good, worse, weights, 0.95)
    assert 0 < low < gain < high
    (good_low, _), (_, worse_high) = (metrics.intervals(one, weights, 0.95)["f1"] for one in (good, worse))
    assert good_low < worse_high  # apart, their intervals overlap
    assert metrics.gain(worse, good, weights, 0.95) == (-gain, pytest.approx(-high), pytest.approx(-low))
