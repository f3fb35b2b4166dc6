"""Alarms: what is false, how long before the failure, and that no lower threshold warns later or less."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workers.episodes.schema import HORIZONS, RATE_HZ
from workers.tasks.predictor import alarms, metrics

few = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
episodes = st.lists(
    st.tuples(st.integers(1, 80).flatmap(lambda steps: hnp.arrays(np.float64, steps, elements=few)), st.booleans()),
    min_size=1,
    max_size=6,
)
RISING = np.array([0.0, 0.25, 0.5, 0.75, 1.0])


def told(scores: list[np.ndarray], fails: list[bool], threshold: float) -> dict[str, float | None]:
    failing = np.array(fails)
    weights = metrics.resampled(len(scores), 200, np.random.default_rng(0))
    raised = alarms.raised(scores, failing, np.array([threshold]))
    return alarms.figures(raised, failing, ~failing, weights, 0.95)


@given(st.lists(st.tuples(st.integers(1, 200), st.booleans()), min_size=1, max_size=8), st.sampled_from(HORIZONS))
def test_who_knows_each_failure_a_horizon_before_announces_all_of_them_just_then(lengths, horizon):
    scores = [np.where(fails & (n - np.arange(n) <= horizon), 1.0, 0.0) for n, fails in lengths]
    fails = [fails for _, fails in lengths]

    found = told(scores, fails, 1.0)

    assert found["false_alarms"] == 0
    if any(fails):
        leads = [min(horizon, n) / RATE_HZ for n, failing in lengths if failing]
        assert found["alarmed_share"] == found["alarmed_share_low"] == 1
        assert found["median_lead_seconds"] == pytest.approx(np.median(leads))
        assert min(leads) - 1e-9 <= found["median_lead_seconds_low"] <= found["median_lead_seconds_high"] <= 0.5
    else:
        assert found["alarmed_share"] is found["median_lead_seconds"] is None


@given(st.integers(1, 300), st.booleans())
def test_who_always_warns_has_a_false_alarm_for_each_half_second_that_no_failure_ends(steps, fails):
    found = told([np.ones(steps)], [fails], 0.5)

    harmless = max(0, steps - 15) if fails else steps
    assert found["false_alarms"] == -(-harmless // 15)
    assert found["alarmed_share"] == (1 if fails else None)


def test_an_alarm_that_begins_too_early_is_false_and_still_announces_the_failure_that_it_lasts_to():
    scores = np.zeros(60)
    scores[60 - 20 :] = 1

    found = told([scores], [True], 0.5)

    assert (found["false_alarms"], found["false_alarms_in_successes"]) == (1, None)
    assert (found["alarmed_share"], found["median_lead_seconds"]) == (1, 0.5)


@given(episodes)
def test_a_lower_threshold_never_announces_fewer_or_later_or_with_fewer_false_alarms(given_episodes):
    scores, fails = [one for one, _ in given_episodes], np.array([failing for _, failing in given_episodes])

    found = alarms.raised(scores, fails, RISING)

    assert (np.diff(found.false_EA, axis=1) <= 0).all()
    assert (np.diff(found.lead_EA, axis=1) <= 0).all()
    assert (found.lead_EA[~fails] == 0).all() and found.lead_EA.max() <= 15


@given(episodes, st.sampled_from([0.1, 0.5, 1.0, 3.0]))
def test_the_threshold_for_a_budget_is_the_lowest_that_keeps_to_it(given_episodes, budget):
    scores, fails = [one for one, _ in given_episodes], np.array([failing for _, failing in given_episodes])

    chosen = alarms.threshold_within(scores, fails, budget)

    rates = alarms.raised(scores, fails, RISING).false_EA.mean(0)
    kept = [value for value in np.unique(np.concatenate(scores)) if rates[value == RISING][0] <= budget]
    assert chosen == min(kept, default=np.inf)


def test_who_never_warns_announces_nothing_and_has_no_lead_time():
    found = told([np.zeros(40), np.zeros(50)], [True, False], float("inf"))

    assert (found["false_alarms"], found["alarmed_share"], found["median_lead_seconds"]) == (0, 0, None)


def test_copies_of_the_episodes_narrow_the_intervals_and_move_no_figure():
    random = np.random.default_rng(3)
    scores, fails = [random.random(60) ** 3 for _ in range(12)], [bool(n % 2) for n in range(12)]

    once, often = told(scores, fails, 0.8), told(scores * 9, fails * 9, 0.8)

    for name in ("false_alarms", "alarmed_share", "median_lead_seconds"):
        assert once[name] == often[name]
        assert once[f"{name}_high"] - once[f"{name}_low"] >= often[f"{name}_high"] - often[f"{name}_low"]


@given(st.lists(st.integers(0, 14), min_size=1, max_size=30))
def test_medians_of_counts_are_the_medians_of_what_was_counted(places):
    values = np.arange(1, 16) / RATE_HZ

    [found] = alarms.medians(np.bincount(places, minlength=15)[None], values)

    assert found == pytest.approx(np.median(values[places]))
