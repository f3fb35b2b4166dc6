"""Reading Kubernetes objects, half-filled ones included."""

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from jobctl.objects import by_index, failure_of, one_line, parse_indexes, parse_time, read_summary, replica_view


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
def test_no_text_breaks_the_readers(text):
    parse_time(text)
    read_summary(text)
    parse_indexes(text) if len(text) < 5 else None


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
