"""The Job controller's transitions, driven by invented ends of pods."""

from hypothesis import given
from hypothesis import strategies as st

from jobctl.local.jobs import (
    Condition,
    JobState,
    PodEnd,
    backoffs,
    decide_end,
    final_condition,
    index_strings,
    record_end,
    startable,
)
from jobctl.local.plan import Container, LocalJob, PodTemplate
from jobctl.local.rules import Action, ExitCodes, FailureRule, PodCondition, SuccessRule
from jobctl.local.saved import load_state, save_state

IGNORE_75 = FailureRule(Action.IGNORE, ExitCodes("In", frozenset({75})))
FAIL_INDEX_66 = FailureRule(Action.FAIL_INDEX, ExitCodes("In", frozenset({66})))
FAIL_JOB_64 = FailureRule(Action.FAIL_JOB, ExitCodes("In", frozenset({64})))
DISRUPTED = FailureRule(Action.IGNORE, conditions=(PodCondition("DisruptionTarget"),))
JOB = LocalJob(
    name="x-r1",
    namespace="default",
    completions=4,
    parallelism=4,
    template=PodTemplate(Container("worker", ("true",)), labels={}, annotations={}, volumes={}),
    backoff_limit=None,
    backoff_limit_per_index=1,
    failure_rules=(FAIL_JOB_64, FAIL_INDEX_66, DISRUPTED, IGNORE_75),
)
PLAIN = JOB._replace(backoff_limit=6, backoff_limit_per_index=None, failure_rules=(DISRUPTED,))


def end(index: int, code: int, **more) -> PodEnd:
    return PodEnd(f"x-r1-{index}-abcde", index, code, **more)


def after(job: LocalJob, *ends: PodEnd, now: float = 100.0) -> JobState:
    state = JobState()
    for pod_end in ends:
        record_end(job, state, pod_end, now, 1.0)
    return state


def test_four_replicas_evicted_at_once_wait_ten_seconds_each_with_a_limit_per_index():
    state = after(JOB, *(end(index, 143, conditions={"DisruptionTarget": "True"}) for index in range(4)))
    assert backoffs(JOB, state, (), 100.0) == [(index, 110.0, 10.0) for index in range(4)]
    assert state.failed_pods == 0


def test_four_replicas_evicted_at_once_wait_eighty_seconds_with_a_limit_for_the_job_alone():
    state = after(PLAIN, *(end(index, 143, conditions={"DisruptionTarget": "True"}) for index in range(4)))
    assert backoffs(PLAIN, state, (), 100.0) == [(index, 180.0, 80.0) for index in range(4)]


def test_a_success_ends_the_common_wait():
    state = after(PLAIN, end(0, 1), end(1, 1), end(2, 0))
    assert backoffs(PLAIN, state, (), 100.0) == []
    assert state.failed_pods == 2


def test_ignored_failures_lengthen_the_wait_but_spare_the_budget():
    state = after(JOB, *[end(1, 75)] * 5)
    assert (state.failed, state.failed_pods) == (set(), 0)
    assert backoffs(JOB, state, {0, 2, 3}, 100.0) == [(1, 260.0, 160.0)]


def test_the_attempt_beyond_the_budget_fails_the_index():
    assert after(JOB, end(2, 1)).failed == set()
    assert after(JOB, end(2, 1), end(2, 1)).failed == {2}


def test_pods_that_the_controller_removed_are_forgotten_unless_they_succeeded():
    state = after(JOB, end(0, 64, removed=True), end(1, 0, removed=True))
    assert state == JobState(succeeded={1})


def test_fail_job_beats_a_success_policy_that_is_met_too():
    job = JOB._replace(success_rules=(SuccessRule(frozenset({0})),))
    state = after(job, end(0, 0), end(1, 64))
    decided = decide_end(job, state, 1.0)
    assert decided is not None
    assert (decided.type, decided.reason) == ("FailureTarget", "PodFailurePolicy")


def test_the_end_is_decided_by_what_comes_first():
    cases = [
        (JOB, (), None),
        (JOB, [end(i, 0) for i in range(4)], ("SuccessCriteriaMet", "CompletionsReached")),
        (JOB, [end(0, 66), *(end(i, 0) for i in (1, 2, 3))], ("FailureTarget", "FailedIndexes")),
        (JOB._replace(max_failed_indexes=0), [end(0, 66)], ("FailureTarget", "MaxFailedIndexesExceeded")),
        (PLAIN._replace(backoff_limit=1), [end(0, 1), end(1, 1)], ("FailureTarget", "BackoffLimitExceeded")),
        (JOB._replace(success_rules=(SuccessRule(count=1),)), [end(3, 0)], ("SuccessCriteriaMet", "SuccessPolicy")),
    ]
    for job, ends, expected in cases:
        decided = decide_end(job, after(job, *ends), 1.0)
        assert (decided and (decided.type, decided.reason)) == expected


def test_the_deadline_counts_active_time_only():
    job = JOB._replace(active_deadline_seconds=10.0)
    assert decide_end(job, JobState(), 9.9) is None
    assert decide_end(job, JobState(), None) is None
    decided = decide_end(job, JobState(), 10.0)
    assert decided is not None
    assert final_condition(decided) == Condition("Failed", "DeadlineExceeded", decided.message)


def test_index_strings_name_failed_indexes_only_with_a_limit_per_index():
    assert index_strings(JOB, JobState({0, 1, 2}, {3})) == {"completedIndexes": "0-2", "failedIndexes": "3"}
    assert index_strings(PLAIN, JobState({0, 1})) == {"completedIndexes": "0,1"}


ENDS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([0, 1, 64, 66, 75])), max_size=12)


@given(ENDS, st.integers(0, 5), st.sets(st.integers(0, 3)))
def test_no_index_gets_a_second_pod_and_parallelism_holds(ends, parallelism, occupied):
    job = JOB._replace(parallelism=parallelism)
    state = after(job, *(end(index, code) for index, code in ends))
    chosen = startable(job, state, occupied, now=1e6)
    assert not set(chosen) & (occupied | state.succeeded | state.failed)
    assert len(chosen) + len(occupied) <= max(parallelism, len(occupied))
    assert chosen == sorted(set(chosen))


@given(ENDS)
def test_a_waiting_index_is_not_started(ends):
    state = after(JOB, *(end(index, code) for index, code in ends))
    waiting = {index for index, _, _ in backoffs(JOB, state, (), 100.0)}
    assert not waiting & set(startable(JOB, state, (), 100.0))


@given(ENDS, st.floats(-1e9, 1e9))
def test_saved_state_reads_back_the_same(ends, offset):
    state = after(JOB, *(end(index, code) for index, code in ends))
    back = load_state(save_state(state, 0.0), 0.0, float("inf"))
    assert back == state
    moved = load_state(save_state(state, offset), -offset, float("inf"))
    assert moved.failed == state.failed
