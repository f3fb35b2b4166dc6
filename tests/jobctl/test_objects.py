"""Reading Kubernetes objects, half-filled ones included."""

import json
from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from jobctl.objects import (
    by_index,
    failure_of,
    one_line,
    parse_indexes,
    parse_time,
    read_backoffs,
    read_summary,
    replica_view,
)


@given(st.sets(st.integers(0, 40)))
def test_index_lists_are_read_as_kubernetes_writes_them(indexes):
    parts, run = [], []
    for index in [*sorted(indexes), None]:
        if run and (index is None or index != run[-1] + 1):
            parts.append(f"{run[0]}" if len(run) == 1 else f"{run[0]}-{run[-1]}")
            run = []
        run.append(index)
    assert parse_indexes(",".join(parts)) == indexes


@given(st.text(max_size=20))
@example("²")  # a digit to str.isdigit, not to int
@example("0-999999999999999999")
@example("[" * 4000)
@example('{"step": ' + "9" * 400 + "}")
def test_no_text_breaks_the_readers(text):
    parse_time(text)
    read_summary(text)
    parse_indexes(text)


def test_times_are_rfc_3339():
    assert parse_time("2026-01-02T03:04:05Z") == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert parse_time("soon") is None
    assert parse_time(None) is None


def test_a_termination_message_is_json_or_its_last_line():
    assert read_summary('{"code": 66, "reason": "gate missed"}') == {"code": 66, "reason": "gate missed"}
    assert read_summary("a\nlast words") == {"reason": "last words"}
    assert read_summary("") == {}


def test_empty_pods_are_read():
    assert by_index([{}]) == {}
    assert failure_of({}) == "ended without an exit code"
    assert replica_view(0, [{}], None).phase == "Pending"


def test_a_code_without_a_sentence_is_explained():
    def ended(code: int) -> dict:
        return {"status": {"containerStatuses": [{"state": {"terminated": {"exitCode": code}}}]}}

    assert failure_of(ended(75)) == "interrupted, state saved (exit code 75)"
    assert failure_of(ended(70)) == "three attempts without progress (exit code 70)"
    assert failure_of(ended(42)) == "crashed (exit code 42)"


def test_one_line_has_no_breaks_and_no_final_stop():
    assert one_line(" a\n b. ") == "a b"
    assert one_line("") is None


def pod(created: str, attempt: int | None = None, failures: int = 0, deleted: bool = False) -> dict:
    annotations = {"batch.kubernetes.io/job-index-failure-count": str(failures)}
    return {
        "metadata": {
            "labels": {"batch.kubernetes.io/job-completion-index": "0"},
            "annotations": annotations | ({} if attempt is None else {"jobctl.dev/attempt": str(attempt)}),
            "creationTimestamp": created,
        } | ({"deletionTimestamp": created} if deleted else {}),
    }  # fmt: skip


def test_pods_are_ordered_by_attempt_and_dates_decide_only_where_nothing_else_does():
    later, earlier = "2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z"
    for first, last in (
        (pod(later, attempt=1), pod(earlier, attempt=2)),
        (pod(later, failures=0), pod(earlier, failures=1)),
        (pod(later, deleted=True), pod(earlier)),
        (pod(earlier), pod(later)),
    ):
        assert by_index([last, first]) == by_index([first, last]) == {0: [first, last]}


def test_a_clock_that_was_set_back_makes_no_wait_longer():
    now = datetime(2026, 1, 1, tzinfo=UTC)
    waits = [{"index": 0, "until_unix_seconds": now.timestamp() + 605, "seconds": 10}]
    (wait,) = read_backoffs({"metadata": {"annotations": {"jobctl.dev/backoff": json.dumps(waits)}}}, now)
    assert (wait.seconds_left, wait.seconds) == (10, 10)
