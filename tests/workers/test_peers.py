"""Hub and members of a group over real connections: what anybody sends ends neither, and hides no peer."""

import contextlib
import json
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting import wait_for

from workers import meeting, peers
from workers.meeting import Place
from workers.peers import Hub, Meeting, Member

AGREED = Meeting("x", "job", 2, silence_seconds=30.0)
HOST = "127.77.1.1"


@contextlib.contextmanager
def hub():
    """A hub of two members, and its place."""
    listener = meeting.hold(HOST, 20_000)
    place = Place("token", 1, listener.getsockname()[1])
    with contextlib.closing(Hub(AGREED, place, listener)) as made:
        yield made, place


@contextlib.contextmanager
def member(place, index=1, agreed=AGREED):
    with contextlib.closing(Member(agreed, HOST, lambda: place, index)) as made:
        yield made


def greeted(place, index=2):
    """A connection that the hub has let in as this index."""
    connection = socket.create_connection((HOST, place.hub))
    connection.sendall(json.dumps({"hello": index, "proof": place.proof(AGREED.member(index))}).encode() + b"\n")
    assert place.is_proof("hub", json.loads(connection.makefile("rb").readline())["proof"])
    return connection


LINES = st.one_of(
    st.binary(max_size=60),
    st.recursive(st.none() | st.integers() | st.floats() | st.text(max_size=5), st.lists, max_leaves=5).map(
        lambda some: json.dumps(some).encode()
    ),
    st.fixed_dictionaries(
        {},
        optional={
            name: st.one_of(st.integers(-1, 3), st.text(max_size=3), st.lists(st.integers(), max_size=2))
            for name in ("hello", "proof", "lost", "aborted", "why", "waits", "generation", "done")
        },
    ).map(lambda some: json.dumps(some).encode()),
    st.just(b"[" * 5000),
)


def test_what_a_stranger_sends_changes_nothing():
    with hub() as (made, place), member(place) as first:
        made.begin(5)
        wait_for("the member hears of the generation", lambda: first.generation == 5)

        @settings(max_examples=50)
        @given(st.lists(LINES, max_size=3))
        def send(lines):
            with socket.create_connection((HOST, place.hub)) as stranger, contextlib.suppress(OSError):
                stranger.sendall(b"\n".join(lines) + b"\n")
                stranger.shutdown(socket.SHUT_WR)
                while stranger.recv(1000):
                    pass
            assert (made.generation, first.generation, made.missing()) == (5, 5, "replica 2")

        send()


@settings(max_examples=20)
@given(LINES)
def test_whatever_a_member_sends_the_group_hears_when_its_connection_ends(line):
    with hub() as (made, place), greeted(place) as second:
        made.begin(5)
        wait_for("replica 2 is there", lambda: made.missing() == "replica 1")
        with contextlib.suppress(OSError):
            second.sendall(line + b"\n")
        second.close()
        wait_for("replica 2 is gone", lambda: made.missing() == "replicas 1, 2")
        assert made.generation is None


@pytest.mark.parametrize("changed", [Place("other", 1, 2), None], ids=["another token", "another job"])
def test_who_does_not_know_the_token_or_is_of_another_job_is_cut_off(changed):
    with hub() as (made, place):
        other = Place("other", 1, place.hub) if changed else place
        agreed = AGREED if changed else Meeting("x", "another job", 2, 30.0)
        with member(other, 1, agreed) as stranger, greeted(place):
            made.begin(5)
            time.sleep(0.5)
            assert (stranger.generation, made.missing()) == (None, "replica 1")


def test_a_member_believes_nobody_who_cannot_prove_the_token():
    """Another process has taken the port of an index 0 that is gone."""
    with socket.create_server((HOST, 0)) as impostor:
        place = Place("token", 1, impostor.getsockname()[1])
        with member(place) as made:
            connection, _ = impostor.accept()
            with connection:
                greeting = connection.makefile("rb").readline()
                connection.sendall(b'{"proof": "x"}\n{"generation": 5}\n{"done": true}\n')
                again, _ = impostor.accept()  # it has gone away, and tries anew
                again.close()
            assert (made.generation, made.done) == (None, False)
            assert b"token" not in greeting


def test_a_member_leaves_who_sends_a_byte_now_and_then(monkeypatch):
    """Or it would be hidden from the index 0 that comes next."""
    monkeypatch.setattr(peers, "GREETING_SECONDS", 0.2)
    with socket.create_server((HOST, 0)) as impostor, member(Place("token", 1, impostor.getsockname()[1])):
        connection, _ = impostor.accept()
        with connection, contextlib.suppress(OSError):  # it has hung up
            while True:
                connection.sendall(b" ")
                time.sleep(0.02)


def test_strangers_that_say_nothing_make_room_for_those_who_do():
    with hub() as (made, place), contextlib.ExitStack() as silent:
        strangers = [silent.enter_context(socket.create_connection((HOST, place.hub))) for _ in range(100)]
        with member(place, 1), member(place, 2):
            wait_for("both are there", lambda: made.alone_since is None)
        assert strangers[0].recv(1) == b"", "the oldest is closed"


def test_all_wait_only_if_each_one_does_and_gets_no_further():
    with hub() as (made, place), member(place, 1), greeted(place) as second:
        made.begin(1)

        def tell(waits):
            second.sendall(json.dumps({"waits": waits}).encode() + b"\n")

        made.tell_waits([1.0])
        made.tell_waits([1.0], index=1)
        assert made.standstill_seconds() == 0
        tell([1.0])
        wait_for("all wait", lambda: made.standstill_seconds() > 0)
        tell(None)
        wait_for("one does not wait", lambda: made.standstill_seconds() == 0)
        tell([2.0])
        wait_for("all wait", lambda: made.standstill_seconds() > 0)
        made.begin(2)
        assert made.standstill_seconds() == 0
