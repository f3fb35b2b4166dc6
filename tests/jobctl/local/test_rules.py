import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobctl.local.rules import (
    Action,
    Decision,
    ExitCodes,
    FailureRule,
    PodCondition,
    SuccessRule,
    backoff_seconds,
    decide,
    format_indexes,
    parse_indexes,
    success_rule_met,
)

DISRUPTED = FailureRule(Action.IGNORE, conditions=(PodCondition("DisruptionTarget"),))
CRASHED = FailureRule(Action.FAIL_JOB, ExitCodes("NotIn", frozenset({75}), "worker"))


@given(st.frozensets(st.integers(0, 200)))
def test_indexes_written_as_text_read_back_the_same(indexes):
    assert parse_indexes(format_indexes(indexes)) == indexes


@pytest.mark.parametrize(
    ("indexes", "text"),
    [([], ""), ([0], "0"), ([0, 1], "0,1"), ([0, 1, 2], "0-2"), ([4, 0, 2, 3], "0,2-4"), ([1, 3, 5], "1,3,5")],
)
def test_three_neighbours_and_more_are_written_as_a_range(indexes, text):
    assert format_indexes(indexes) == text


@pytest.mark.parametrize("text", ["a", "3-1", "1-", "1,,x"])
def test_what_is_no_list_of_indexes_is_an_error(text):
    with pytest.raises(ValueError):
        parse_indexes(text)


def test_the_back_off_is_ten_seconds_doubling_up_to_ten_minutes():
    assert [backoff_seconds(n) for n in range(9)] == [0, 10, 20, 40, 80, 160, 320, 600, 600]


@given(st.integers(0, 10**9), st.floats(0, 1))
def test_the_back_off_never_shrinks_and_never_passes_its_maximum(failures, scale):
    assert backoff_seconds(failures, scale) <= backoff_seconds(failures + 1, scale) <= 600 * scale


def test_the_first_rule_that_matches_decides():
    assert decide([DISRUPTED, CRASHED], "worker", 1, {"DisruptionTarget": "True"}, "p") == Decision(
        Action.IGNORE, 0, "Pod p has condition DisruptionTarget matching Ignore rule at index 0"
    )
    assert decide([DISRUPTED, CRASHED], "worker", 1, {"DisruptionTarget": "False"}, "p") == Decision(
        Action.FAIL_JOB,
        1,
        "Container worker for pod p failed with exit code 1 matching FailJob rule at index 1",
    )


def test_a_pod_that_no_rule_matches_is_counted():
    assert decide([DISRUPTED, CRASHED], "worker", 75, {}) == Decision(Action.COUNT)


def test_a_rule_for_another_container_does_not_match():
    assert not ExitCodes("In", frozenset({1}), "sidecar").matches("worker", 1)
    assert ExitCodes("In", frozenset({1})).matches("worker", 1)


@given(st.frozensets(st.integers(1, 255)), st.integers(0, 255))
def test_in_and_not_in_share_out_the_failures_and_leave_success_alone(values, code):
    matches = [ExitCodes(operator, values).matches("worker", code) for operator in ("In", "NotIn")]
    assert sum(matches) == (code != 0)


@pytest.mark.parametrize(
    ("rule", "succeeded", "met"),
    [
        (SuccessRule(frozenset({0})), {0}, True),
        (SuccessRule(frozenset({0})), {1, 2}, False),
        (SuccessRule(frozenset({0, 1})), {0}, False),
        (SuccessRule(frozenset({0, 1}), count=1), {1}, True),
        (SuccessRule(count=2), {5}, False),
        (SuccessRule(count=2), {5, 6}, True),
    ],
)
def test_a_success_rule_needs_its_indexes_or_its_count(rule, succeeded, met):
    assert success_rule_met([rule], succeeded) == (0 if met else None)


def test_without_success_rules_none_is_met():
    assert success_rule_met([], {0, 1}) is None
