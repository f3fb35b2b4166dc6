"""Whether all replicas of a training group live: every supervisor holds a connection with index 0's.

A generation is one life of all the group's loops; its number is that of the lease which index 0 took for it. When a
supervisor is lost (its connection closes, or is silent for too long), or one says that its loops lost a peer, the
generation is over: all end their loops and start them again, inside their pods, in the next one. Messages are lines of
JSON; an empty object says no more than "I live".

Both sides first prove that they know the token which index 0 left on the volume (workers/meeting.py). Whoever can't is
cut off, and costs the group nothing: strangers' connections are few, short, and none takes part. Beyond that nothing
here touches the volume: slow storage tears no healthy group down. Standard library only.
"""

import contextlib
import json
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from workers.meeting import Place

BEATS_IN_SILENCE = 6  # so many signs of life fit into the time after which a peer is taken for lost
CONNECT_SECONDS = 5.0
GREETING_SECONDS = 5.0  # after which a connection that has proved nothing is closed
MOST_STRANGERS = 32  # connections that have proved nothing; the oldest makes room
RETRY_SECONDS = 0.3
FAREWELL_SECONDS = 2.0
LONGEST_LINE = 4096
LONGEST_WHY = 500  # characters: at most 6 bytes each in JSON
_HUB = "hub"


@dataclass(frozen=True)
class Meeting:
    """What the supervisors of one group agree in. `members`: how many there are besides index 0."""

    run: str
    job_uid: str
    members: int
    silence_seconds: float

    def member(self, index: int) -> str:
        """Who proves the token as this replica."""
        return f"member {index} of {self.run}, job {self.job_uid}"


class Peers:
    """What a supervisor knows of the others. Read by its main thread, written by threads that only wait for sockets."""

    def __init__(self, meeting: Meeting) -> None:
        self.meeting = meeting
        self.generation: int | None = None  # that the loops should be of; None: wait
        self.why = ""  # the last one is over
        self.over_since = 0.0  # time.monotonic()
        self.done = False  # index 0 has published the result
        self.alone_since: float | None = time.monotonic()  # since when somebody is missing
        self.first_aborted: int | None = None  # the index whose loops were the first of this generation to abort
        self._waits: list[Any] | None = None
        self._closed = threading.Event()

    @property
    def store(self) -> tuple[str, int]:
        """Where rank 0's store listens, as this supervisor sees it: host, port."""
        raise NotImplementedError

    @property
    def store_prefix(self) -> str:
        """Of all keys in the store: no word of the token that opens the hub, and not to be guessed."""
        raise NotImplementedError

    def missing(self) -> str:
        """Who is, in words."""
        raise NotImplementedError

    def begin(self, generation: int) -> None:
        """Index 0: start a generation with all who are here; who comes later joins it."""

    def report_lost(self, generation: int, why: str) -> None:
        """The loops of this supervisor ended because a peer did."""

    def report_aborted(self, generation: int) -> None:
        """A loop of this supervisor aborted: `first_aborted` then says whose did so first."""

    def tell_waits(self, waits: list[Any] | None) -> None:
        """What the loops of this supervisor wait in: the same as long as they get no further; None if one works."""
        self._waits = waits

    def standstill_seconds(self) -> float:
        """Index 0: for how long all loops of all replicas have waited for each other."""
        return 0.0

    def finish(self) -> None:
        """Index 0: tell the others that the result is published, and give them a moment to leave."""

    def close(self) -> None:
        self._closed.set()

    def _begun(self, generation: int) -> None:
        self.first_aborted = None
        self.generation = generation

    def _over(self, why: str) -> None:
        if self.generation is not None:
            self.why, self.over_since, self.generation = why, time.monotonic(), None

    def _every_beat(self, beat: Callable[[], None]) -> None:
        while not self._closed.wait(self.meeting.silence_seconds / BEATS_IN_SILENCE):
            beat()


class Hub(Peers):
    """Index 0's side. `listener` is bound to its port; the hub listens there."""

    def __init__(self, meeting: Meeting, place: Place, listener: socket.socket) -> None:
        super().__init__(meeting)
        self._place, self._listener, self._host = place, listener, listener.getsockname()[0]
        self._lock = threading.RLock()
        self._connections: dict[int, socket.socket] = {}
        self._strangers: OrderedDict[socket.socket, float] = OrderedDict()  # since when, time.monotonic()
        self._joined: set[int] = set()
        self._waiting: dict[int, tuple[Any, float]] = {}  # by index: in what, and since when (time.monotonic())
        self._count()
        listener.listen(meeting.members + MOST_STRANGERS)
        _thread("peers-listen", self._listen)
        _thread("peers-beat", self._every_beat, self._beat)

    @property
    def store(self) -> tuple[str, int]:
        return self._host, self._place.store

    @property
    def store_prefix(self) -> str:
        return self._place.proof("store")

    def missing(self) -> str:
        with self._lock:
            absent = sorted(set(range(1, self.meeting.members + 1)) - set(self._connections))
        return f"replica{'s' if len(absent) > 1 else ''} {', '.join(map(str, absent))}"

    def begin(self, generation: int) -> None:
        with self._lock:
            self._begun(generation)
            self._waiting.clear()
            self._joined = set(self._connections)
            self._tell({"generation": generation})

    def report_lost(self, generation: int, why: str) -> None:
        with self._lock:
            if self.generation == generation:
                self._over(why[:LONGEST_WHY])
                self._joined.clear()
                self._tell({"over": self.why})

    def report_aborted(self, generation: int, index: int = 0) -> None:
        with self._lock:
            if self.generation == generation and self.first_aborted is None:
                self.first_aborted = index
                self._tell({"aborted": index})

    def tell_waits(self, waits: list[Any] | None, index: int = 0) -> None:
        with self._lock:
            if waits is None:
                self._waiting.pop(index, None)
            elif self._waiting.get(index, (None,))[0] != waits:
                self._waiting[index] = waits, time.monotonic()

    def standstill_seconds(self) -> float:
        with self._lock:
            if len(self._waiting) <= self.meeting.members:
                return 0.0
            return time.monotonic() - max(since for _, since in self._waiting.values())

    def finish(self) -> None:
        self._tell({"done": True})
        latest = time.monotonic() + FAREWELL_SECONDS
        while self._connections and time.monotonic() < latest:
            time.sleep(0.02)

    def close(self) -> None:
        super().close()
        with self._lock:
            for open_socket in (self._listener, *self._connections.values(), *self._strangers):
                _shut(open_socket)

    def _beat(self) -> None:
        self._tell({})
        with self._lock:
            self._send_away(lambda since: time.monotonic() - since > GREETING_SECONDS)

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:  # a connection that is gone before it was taken, or too many of them
                self._closed.wait(RETRY_SECONDS)
                continue
            connection.settimeout(GREETING_SECONDS)
            with self._lock:
                self._strangers[connection] = time.monotonic()
                self._send_away(lambda since: len(self._strangers) > MOST_STRANGERS)
            try:
                _thread("peers-member", self._serve, connection)
            except RuntimeError:  # no thread is to be had
                self._leave(connection, None, "")

    def _send_away(self, is_due: Callable[[float], bool]) -> None:
        """Strangers, the oldest first. Each one's own thread then closes its connection."""
        while self._strangers and is_due(next(iter(self._strangers.values()))):
            _shut(self._strangers.popitem(last=False)[0])

    def _serve(self, connection: socket.socket) -> None:
        """One connection, until it is lost; that of a member from its greeting on."""
        index, why = None, "its connection closed"
        try:
            messages = _lines(connection)
            if (index := self._welcome(connection, next(messages, {}))) is not None:
                for message in messages:
                    self._hear(index, message)
        except TimeoutError:
            why = f"it was silent for {self.meeting.silence_seconds:.0f} s"
        except (OSError, ValueError) as error:
            why = f"its connection failed: {error}"
        finally:
            self._leave(connection, index, why)

    def _hear(self, index: int, message: dict[str, Any]) -> None:
        self.tell_waits(message.get("waits"), index)
        if "lost" in message:
            self.report_lost(_whole(message["lost"]), f"replica {index}: {message.get('why')}")
        if "aborted" in message:
            self.report_aborted(_whole(message["aborted"]), index)

    def _leave(self, connection: socket.socket, index: int | None, why: str) -> None:
        with self._lock:
            self._strangers.pop(connection, None)
            if index is not None and self._connections.get(index) is connection:
                self._drop(index, why)
        _shut(connection)

    def _welcome(self, connection: socket.socket, greeting: dict[str, Any]) -> int | None:
        """Its index, if it belongs here. A second connection of an index is that of its replacement."""
        index, meeting = greeting.get("hello"), self.meeting
        if type(index) is not int or not 1 <= index <= meeting.members:
            return None
        if not self._place.is_proof(meeting.member(index), greeting.get("proof")):
            return None
        with self._lock:
            if self._strangers.pop(connection, None) is None:
                return None  # sent away meanwhile
            if (before := self._connections.get(index)) is not None:
                self._drop(index, "another pod came in its place")
                _shut(before)
            connection.settimeout(meeting.silence_seconds)
            self._connections[index] = connection
            self._count()
            _send(connection, {"proof": self._place.proof(_HUB)})
            if self.generation is not None:
                self._joined.add(index)
                _send(connection, {"generation": self.generation})
        return index

    def _drop(self, index: int, why: str) -> None:
        del self._connections[index]
        self._waiting.pop(index, None)
        self._count()
        if index in self._joined and self.generation is not None:
            self.report_lost(self.generation, f"replica {index} is lost: {why}")

    def _count(self) -> None:
        if len(self._connections) == self.meeting.members:
            self.alone_since = None
        elif self.alone_since is None:
            self.alone_since = time.monotonic()

    def _tell(self, message: dict[str, Any]) -> None:
        with self._lock:
            for connection in self._connections.values():
                _send(connection, message)


class Member(Peers):
    """The side of every other index: connects to `host` again and again, place and name looked up anew each time.

    `find_place` reads what index 0 wrote: None, or an OSError, while there is nothing to be read.
    """

    def __init__(self, meeting: Meeting, host: str, find_place: Callable[[], Place | None], index: int) -> None:
        super().__init__(meeting)
        self._host, self._find_place, self._index = host, find_place, index
        self._hub, self._place = host, Place("", 0, 0)
        self._connection: socket.socket | None = None
        _thread("peers-member", self._stay_connected)
        _thread("peers-beat", self._every_beat, lambda: self._say({"waits": self._waits}))

    @property
    def store(self) -> tuple[str, int]:
        return self._hub, self._place.store

    @property
    def store_prefix(self) -> str:
        return self._place.proof("store")

    def missing(self) -> str:
        return "replica 0"

    def report_lost(self, generation: int, why: str) -> None:
        self._say({"lost": generation, "why": why[:LONGEST_WHY]})

    def report_aborted(self, generation: int) -> None:
        self._say({"aborted": generation})

    def close(self) -> None:
        super().close()
        if self._connection is not None:
            _shut(self._connection)

    def _stay_connected(self) -> None:
        while not self._closed.is_set():
            # not there yet, or gone: DNS says so by an OSError too
            with contextlib.suppress(OSError, ValueError):
                if (place := self._find_place()) is not None:
                    with socket.create_connection((self._host, place.hub), CONNECT_SECONDS) as connection:
                        self._attend(connection, place)
            self._connection = None
            self._over("replica 0 is lost")
            if self.alone_since is None:
                self.alone_since = time.monotonic()
            self._closed.wait(RETRY_SECONDS)

    def _attend(self, connection: socket.socket, place: Place) -> None:
        connection.settimeout(GREETING_SECONDS)
        _send(connection, {"hello": self._index, "proof": place.proof(self.meeting.member(self._index))})
        messages = _lines(connection)
        slow = threading.Timer(GREETING_SECONDS, _shut, (connection,))  # whoever sends a byte now and then
        slow.daemon = True
        slow.start()
        try:
            answer = next(messages, {}).get("proof")
        finally:
            slow.cancel()
        if not place.is_proof(_HUB, answer):
            return  # another process has that port by now
        connection.settimeout(self.meeting.silence_seconds)
        self._hub, self._place, self._connection = connection.getpeername()[0], place, connection
        for message in messages:
            if "generation" in message:
                self.alone_since = None
                self._begun(_whole(message["generation"]))
            if "aborted" in message:
                self.first_aborted = _whole(message["aborted"])
            if "over" in message:
                self._over(str(message["over"]))
            self.done = self.done or "done" in message

    def _say(self, message: dict[str, Any]) -> None:
        if (connection := self._connection) is not None:
            _send(connection, message)


def _lines(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """Raises TimeoutError after the socket's time of silence, ValueError for what is no message."""
    with connection.makefile("rb") as file:
        while line := file.readline(LONGEST_LINE):
            try:
                message = json.loads(line)
            except RecursionError:
                raise ValueError("a message that is too deep") from None
            if not isinstance(message, dict):
                raise ValueError("not a message")
            yield message


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError("a message with a number that is none")
    return value


def _send(connection: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # whoever reads from this connection sees that it is gone
        connection.sendall(json.dumps(message).encode() + b"\n")


def _shut(open_socket: socket.socket) -> None:
    """Close it for both sides now, also while a thread waits for it."""
    with contextlib.suppress(OSError):
        open_socket.shutdown(socket.SHUT_RDWR)
    open_socket.close()


def _thread(name: str, call: Callable[..., None], *arguments: Any) -> None:
    threading.Thread(target=call, args=arguments, name=name, daemon=True).start()
