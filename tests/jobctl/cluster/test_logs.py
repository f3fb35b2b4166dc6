"""Which logs the API server still has, which only the volume; and how a cut log goes on."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from jobctl.backend import LogLine
from jobctl.cluster import logs
from jobctl.cluster.logs import Tail, from_volume, has_log, some_are_gone
from jobctl.cluster.refusals import AwayError
from jobctl.errors import UnreachableError


class Stream:
    """A response that is cut off after its chunks, where `cut` says so."""

    def __init__(self, chunks: list[bytes], cut: bool = False) -> None:
        self.chunks, self.cut = list(chunks), cut

    def read1(self) -> bytes:
        if self.chunks:
            return self.chunks.pop(0)
        if self.cut:
            raise AwayError("cut off")
        return b""


class FakeApi:
    """Gives one stream a request, and remembers what was asked."""

    def __init__(self, *streams: Stream | UnreachableError) -> None:
        self.streams, self.queries = list(streams), []

    def path(self, *parts: str) -> str:
        return "/".join(parts)

    @contextmanager
    def open(self, method: str, path: str, what: str, query: dict, read_seconds: float) -> Iterator[Stream]:
        self.queries.append(query)
        stream = self.streams.pop(0)
        if isinstance(stream, UnreachableError):
            raise stream
        yield stream


def line(second: int, text: str) -> bytes:
    return f"2026-01-01T00:00:{second:02d}.000000001Z {text}\n".encode()


def lines_of(tail: Tail) -> list[LogLine]:
    said = []
    while not tail.lines.empty():
        said.append(tail.lines.get())
    return said


def test_a_log_that_was_cut_goes_on_after_the_last_line_without_saying_one_twice(pod, monkeypatch):
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0)
    torn = line(3, "three")
    api = FakeApi(
        Stream([line(1, "one"), line(2, "two") + torn[:9]], cut=True), Stream([line(2, "two"), torn, line(4, "four")])
    )
    phases = iter([False, True])
    tail = Tail(api, pod(2, uid="a"))
    tail.follow(lambda: next(phases, True))
    assert lines_of(tail) == [LogLine(2, "pod-a", text) for text in ("one", "two", "three", "four")]
    assert [query.get("sinceTime") for query in api.queries] == [None, "2026-01-01T00:00:02Z"]
    assert [query["follow"] for query in api.queries] == ["true", "false"]


def test_lines_that_a_clock_set_back_has_dated_earlier_are_not_left_out(pod, monkeypatch):
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0)
    api = FakeApi(
        Stream([line(8, "one"), line(9, "two"), line(1, "three")], cut=True),
        Stream([line(1, "three"), line(2, "four"), line(1, "five")]),
    )
    phases = iter([False, True])
    tail = Tail(api, pod(0, uid="a"))
    tail.follow(lambda: next(phases, True))
    assert [said.text for said in lines_of(tail)] == ["one", "two", "three", "four", "five"]


def test_a_worker_that_says_nothing_for_minutes_is_asked_again_and_again_without_a_word(pod, monkeypatch):
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0)
    monkeypatch.setattr(logs, "LAST_TRY_SECONDS", 0)
    silences = [Stream([], cut=True) for _ in range(5)]
    api = FakeApi(Stream([line(1, "one")], cut=True), *silences, Stream([line(2, "two")]))
    phases = iter([False] * 6 + [True])
    notes: list[str] = []
    tail = Tail(api, pod(0, uid="a"), notes.append)
    tail.follow(lambda: next(phases, True))
    assert ([said.text for said in lines_of(tail)], notes) == (["one", "two"], [])


def test_a_node_that_is_away_is_said_once_and_its_ended_pod_is_given_up(pod, monkeypatch):
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0)
    monkeypatch.setattr(logs, "LAST_TRY_SECONDS", 0)
    api = FakeApi(*(UnreachableError("the kubelet is away (500)") for _ in range(3)))
    phases = iter([False, False, True])
    notes: list[str] = []
    tail = Tail(api, pod(1, uid="a"), notes.append)
    tail.follow(lambda: next(phases))
    assert (lines_of(tail), notes, tail.done.is_set()) == ([], ["[1] the kubelet is away (500)"], True)


def test_following_says_that_the_api_server_is_away_and_goes_on_when_it_is_back(pod, monkeypatch):
    monkeypatch.setattr(logs, "LOOK_SECONDS", 0)
    ended = pod(0, "Succeeded", uid="a")
    looks = iter([([pod(0, uid="a")], False), AwayError("It does not answer."), ([ended], True)])

    def look():
        seen = next(looks, ([ended], True))
        if isinstance(seen, AwayError):
            raise seen
        return seen

    notes: list[str] = []
    api = FakeApi(Stream([line(1, "one")]), *(Stream([]) for _ in range(50)))
    found = list(logs.stream(api, look, None, True, lambda pods: iter(()), notes.append))
    assert ([said.text for said in found], notes) == (
        ["one"], ["It does not answer. Waiting for it to come back.", "It answers again, after 0 s."],
    )  # fmt: skip


def test_the_last_line_counts_also_without_its_end_and_the_kubelet_s_own_words_do_not(pod):
    api = FakeApi(Stream([b"unable to retrieve container logs for containerd://8b2e\n", line(1, "done")[:-1]]))
    assert list(Tail(api, pod(0, uid="a")).read(follow=False)) == [LogLine(0, "pod-a", "done")]


def test_an_ended_pod_that_is_only_kept_for_the_job_controller_has_no_log(pod):
    assert has_log(pod(0, "Running", deleted="2026-01-01T00:00:00Z"))
    assert has_log(pod(0, "Failed"))
    assert not has_log(pod(0, "Failed", deleted="2026-01-01T00:00:00Z"))


@pytest.mark.parametrize(("failures", "ignored", "gone"), [(0, 0, False), (1, 0, True), (0, 3, True)])
def test_a_pod_s_counts_tell_of_attempts_that_are_gone(pod, failures, ignored, gone):
    assert some_are_gone([pod(0, failures=failures, ignored=ignored)]) is gone


def test_a_pod_without_a_log_is_gone_though_the_controller_still_keeps_it(pod):
    assert some_are_gone([pod(0, "Failed", deleted="2026-01-01T00:00:00Z")])


def test_failed_pods_that_are_still_there_are_not_gone(pod):
    first = pod(0, "Failed", uid="a", created="2026-01-01T00:00:00Z")
    assert not some_are_gone([first, pod(0, uid="b", failures=1, created="2026-01-01T00:00:30Z")])


FILES = {"attempts/1.b.log": b"second\nlast", "attempts/0.a.log": b"first\r\n", "attempts/0.c.log": b"there\n"}


class FakeReader:
    """A volume with the attempts `a` (the oldest), `b` and `c`."""

    def logs(self, run: str) -> list[str]:
        return list(FILES)

    def attempt_records(self, run: str) -> dict[str, Any]:
        return {"0.a": {"startedAt": "1", "pod": "x-r1-0-a"}, "1.b": {"startedAt": "2"}, "0.c": {"startedAt": "3"}}

    def read(self, run: str, path: str) -> Iterator[bytes]:
        yield from (FILES[path][:4], FILES[path][4:])


def test_attempts_whose_pods_are_gone_are_read_from_the_volume_oldest_first(pod):
    assert list(from_volume(FakeReader(), "x", [pod(0, uid="c")])) == [
        LogLine(0, "x-r1-0-a", "first"),
        LogLine(1, "b", "second"),
        LogLine(1, "b", "last"),
    ]
