"""The Job controller's back-off, worked out from pods. Seconds as measured on Kubernetes 1.36 (10, 20, 40 ... 600)."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobctl.cluster.backoff import backoff_seconds, backoffs, finished_at

END = datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
ENDED = "2026-01-01T00:01:00Z"


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 10), (2, 20), (3, 40), (6, 320), (7, 600), (8, 600), (10_000, 600)]
)
def test_it_is_10_s_doubles_with_every_failure_and_stays_at_10_min(failures, seconds):
    assert backoff_seconds(failures) == seconds


@given(failures=st.integers(1, 1000))
def test_it_never_shrinks(failures):
    assert 10 <= backoff_seconds(failures) <= backoff_seconds(failures + 1) <= 600


def test_an_index_waits_from_its_last_pod_s_end(job, pod):
    pods = [pod(0, "Running", uid="a"), pod(1, "Failed", uid="b", finished=ENDED)]
    expected = {"index": 1, "until_unix_seconds": (END + timedelta(seconds=10)).timestamp(), "seconds": 10.0}
    assert backoffs(job(completions=2), pods) == [expected]


def test_ignored_failures_count_as_much_as_others(job, pod):
    pods = [pod(0, "Failed", finished=ENDED, failures=1, ignored=1)]
    assert [wait["seconds"] for wait in backoffs(job(), pods)] == [40.0]


def test_the_pod_that_ended_last_counts(job, pod):
    pods = [
        pod(0, "Failed", uid="a", finished="2026-01-01T00:00:10Z", created="2026-01-01T00:00:00Z"),
        pod(0, "Failed", uid="b", finished=ENDED, ignored=1, created="2026-01-01T00:00:20Z"),
    ]
    assert backoffs(job(), pods)[0]["until_unix_seconds"] == (END + timedelta(seconds=20)).timestamp()


NOT_WAITING = {
    "a pod that runs": ({}, [("Failed", ENDED, "a"), ("Running", None, "b")]),
    "a pod that still ends": ({}, [("Running", ENDED, "a")]),
    "an index that is done": ({"status": {"completedIndexes": "0"}}, [("Failed", ENDED, "a")]),
    "an index that has failed": ({"status": {"failedIndexes": "0"}}, [("Failed", ENDED, "a")]),
    "a suspended job": ({"suspend": True}, [("Failed", ENDED, "a")]),
    "a job that has failed": (
        {"status": {"conditions": [{"type": "Failed", "status": "True"}]}}, [("Failed", ENDED, "a")],
    ),
    "no pod at all": ({}, []),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_WAITING)
def test_nothing_waits_with(case, job, pod):
    fields, pods = NOT_WAITING[case]
    made = [pod(0, phase, uid=uid, **({"finished": finished} if finished else {})) for phase, finished, uid in pods]
    assert backoffs(job(**fields), made) == []


def test_without_a_container_s_end_the_pod_s_readiness_then_its_deletion_counts(pod):
    not_ready = {"type": "Ready", "status": "False", "lastTransitionTime": ENDED}
    assert finished_at(pod(0, "Failed", conditions=[not_ready], deleted="2026-01-01T00:09:00Z")) == END
    assert finished_at(pod(0, "Failed", deleted=ENDED)) == END
    assert finished_at(pod(0, "Failed")) is None
