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


@given(probabilities, labels)
def test_no_threshold_has_a_higher_f1_than_the_chosen_one(probabilities, labels):
    threshold, score = metrics.best_threshold(probabilities, labels)

    of = [metrics.figures(metrics.counts(probabilities, labels, t))["f1"] or 0.0 for t in np.unique(probabilities)]
    assert score == pytest.approx(max(of))
    assert (metrics.figures(metrics.counts(probabilities, labels, threshold))["f1"] or 0.0) == pytest.approx(score)


def test_each_group_pools_the_outputs_that_it_names():
    counted = np.arange(48).reshape(4, 4, 3)

    pooled = {key: counted[index].reshape(-1, 3).sum(0) for key, _, index in metrics.groups()}

    whole = pooled.pop("micro")
    assert list(pooled) == [
        "horizon_6",
        "horizon_9",
        "horizon_12",
        "horizon_15",
        "drop",
        "timeout",
        "collision",
        "other",
    ]
    np.testing.assert_array_equal(sum(pooled[key] for key in list(pooled)[:4]), whole)
    np.testing.assert_array_equal(sum(pooled[key] for key in list(pooled)[4:]), whole)


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
    once, often = (
        metrics.intervals(random_episodes(times), 500, 0.95, np.random.default_rng(1)) for times in (1, repeat)
    )

    assert once == often
    assert all(low < high for low, high in once.values())


def test_an_interval_is_wider_with_fewer_episodes():
    counted = random_episodes(1)

    (low, high), (wide_low, wide_high) = (
        metrics.intervals(some, 2000, 0.95, np.random.default_rng(1))["f1"] for some in (counted, counted[:4])
    )

    assert wide_high - wide_low > high - low


def test_what_is_undefined_has_no_interval():
    nothing = np.zeros((5, 4, 4, 3), dtype=np.int64)

    assert metrics.intervals(nothing, 100, 0.95, np.random.default_rng(0)) == {}
    assert json.dumps(metrics.figures(nothing)) == '{"precision": null, "recall": null, "f1": null}'
