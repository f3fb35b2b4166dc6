"""Horizon labels: what they say, for every length and outcome."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.episodes.labels import horizon_labels
from workers.episodes.schema import FAILURES, HORIZONS, OUTCOMES, SUCCESS

lengths = st.integers(1, 60)


@given(lengths, st.sampled_from(FAILURES))
def test_a_failure_marks_exactly_its_last_h_timesteps_under_its_own_type(steps, failure):
    expected = np.zeros((steps, 4, 4), np.uint8)
    for h, horizon in enumerate(HORIZONS):
        for t in range(steps):
            expected[t, h, FAILURES.index(failure)] = steps - t <= horizon
    np.testing.assert_array_equal(horizon_labels(steps, failure), expected)


@given(lengths)
def test_a_success_has_no_positive_label(steps):
    np.testing.assert_array_equal(horizon_labels(steps, SUCCESS), np.zeros((steps, 4, 4), np.uint8))


@given(lengths, st.sampled_from(OUTCOMES))
def test_labels_are_nested_and_never_fall_again(steps, outcome):
    labels = horizon_labels(steps, outcome).astype(int)
    assert (np.diff(labels, axis=1) >= 0).all(), "what happens within 6 timesteps happens within 9"
    assert (np.diff(labels, axis=0) >= 0).all(), "a failure that comes within h timesteps stays announced"


@given(lengths, st.sampled_from(OUTCOMES))
def test_labels_do_not_depend_on_what_came_before_the_longest_horizon(steps, outcome):
    np.testing.assert_array_equal(horizon_labels(steps + 30, outcome)[30:], horizon_labels(steps, outcome))


@pytest.mark.parametrize(("steps", "outcome"), [(0, "drop"), (5, "exploded")])
def test_nonsense_is_refused(steps, outcome):
    with pytest.raises(ValueError, match=r"timestep|exploded"):
        horizon_labels(steps, outcome)
