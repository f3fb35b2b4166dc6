"""Whether all replicas of a training group live: every supervisor holds a connection with index 0's.

Index 0's supervisor listens at the port after the store's. A generation is one life of all the group's loops; its
number is that of the lease which index 0 took for it. When a supervisor is lost (its connection closes, or is silent
for too long), or one says that its loops lost a peer, the generation is over: all end their loops and start them again,
inside their pods, in the next one. Messages are lines of JSON; an empty object says no more than "I live".

Standard library only, and nothing here touches the volume: slow storage tears no healthy group down.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from workers.errors import WorkerError

BEATS_IN_SILENCE = 6  # so many signs of life fit into the time after which a peer is taken for lost
CONNECT_SECONDS = 5.0
RETRY_SECONDS = 0.3
FAREWELL_SECONDS = 2.0
LONGEST_LINE = 4096


@dataclass(frozen=True)
class Meeting:
    """What the supervisors of one group agree in. `members`: how many there are besides index 0."""

    run: str
    job_uid: str
    members: int
    silence_seconds: float


class Peers:
    """What a supervisor knows of the others. Read by its main thread, written by threads that only wait for sockets."""

    def __init__(self, meeting: Meeting) -> None:
        self.meeting = meeting
        self.generation: int | None = None  # that the loops should be of; None: wait
        self.why = ""  # the last one is over
        self.over_since = 0.0  # time.monotonic()
        self.done = False  # index 0 has published the result
        self.alone_since: float | None = time.monotonic()  # since when somebody is missing
        self._closed = threading.Event()

    @property
    def store_host(self) -> str:
        """Where rank 0's store listens, as this supervisor sees it."""
        raise NotImplementedError

    def missing(self) -> str:
        """Who is, in words."""
        raise NotImplementedError

    def begin(self, generation: int) -> None:
        """Index 0: start a generation with all who are here; who comes later joins it."""

    def report_lost(self, generation: int, why: str) -> None:
        """The loops of this supervisor ended because a peer did."""

    def finish(self) -> None:
        """Index 0: tell the others that the result is published, and give them a moment to leave."""

    def close(self) -> None:
        self._closed.set()

    def _over(self, why: str) -> None:
        if self.generation is not None:
            self.why, self.over_since, self.generation = why, time.monotonic(), None

    def _every_beat(self, beat: Callable[[], None]) -> None:
        while not self._closed.wait(self.meeting.silence_seconds / BEATS_IN_SILENCE):
            beat()


class Hub(Peers):
    """Index 0's side."""

    def __init__(self, meeting: Meeting, host: str, port: int) -> None:
        super().__init__(meeting)
        self._host = host
        self._lock = threading.RLock()
        self._connections: dict[int, socket.socket] = {}
        self._joined: set[int] = set()
        self._count()
        try:
            self._listener = socket.create_server((host, port), backlog=meeting.members + 8)
        except OSError as error:
            raise WorkerError(f"replicas cannot meet at {host}:{port}: {error.strerror}") from error
        _thread("peers-listen", self._listen)
        _thread("peers-beat", self._every_beat, lambda: self._tell({}))

    @property
    def store_host(self) -> str:
        return self._host

    def missing(self) -> str:
        with self._lock:
            absent = sorted(set(range(1, self.meeting.members + 1)) - set(self._connections))
        return f"replica{'s' if len(absent) > 1 else ''} {', '.join(map(str, absent))}"

    def begin(self, generation: int) -> None:
        with self._lock:
            self.generation = generation
            self._joined = set(self._connections)
            self._tell({"generation": generation})

    def report_lost(self, generation: int, why: str) -> None:
        with self._lock:
            if self.generation == generation:
                self._over(why)
                self._joined.clear()
                self._tell({"over": why})

    def finish(self) -> None:
        self._tell({"done": True})
        latest = time.monotonic() + FAREWELL_SECONDS
        while self._connections and time.monotonic() < latest:
            time.sleep(0.02)

    def close(self) -> None:
        super().close()
        with self._lock:
            for open_socket in (self._listener, *self._connections.values()):
                _shut(open_socket)

    def _listen(self) -> None:
        while not self._closed.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:  # a connection that is gone before it was taken, or too many of them
                self._closed.wait(RETRY_SECONDS)
                continue
            connection.settimeout(self.meeting.silence_seconds)
            _thread("peers-member", self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        """One member, from its first line until it is lost."""
        index, why = None, "its connection closed"
        try:
            for message in _lines(connection):
                if "hello" in message:
                    index = self._welcome(connection, message["hello"])
                if index is None:
                    break
                if "lost" in message and isinstance(message["lost"], int):
                    self.report_lost(message["lost"], f"replica {index}: {message.get('why')}")
        except TimeoutError:
            why = f"it was silent for {self.meeting.silence_seconds:.0f} s"
        except (OSError, ValueError) as error:
            why = f"its connection failed: {error}"
        with self._lock:
            if index is not None and self._connections.get(index) is connection:
                self._drop(index, why)
        _shut(connection)

    def _welcome(self, connection: socket.socket, hello: dict[str, Any]) -> int | None:
        """Its index, if it belongs here. A second connection of an index is that of its replacement."""
        index, meeting = hello.get("index"), self.meeting
        ours = (hello.get("run"), hello.get("job")) == (meeting.run, meeting.job_uid)
        if not ours or not isinstance(index, int) or not 1 <= index <= meeting.members:
            return None
        with self._lock:
            if (before := self._connections.get(index)) is not None:
                self._drop(index, "another pod came in its place")
                _shut(before)
            self._connections[index] = connection
            self._count()
            if self.generation is not None:
                self._joined.add(index)
                _send(connection, {"generation": self.generation})
        return index

    def _drop(self, index: int, why: str) -> None:
        del self._connections[index]
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
    """The side of every other index: connects to `host` again and again, the name looked up anew each time."""

    def __init__(self, meeting: Meeting, host: str, port: int, index: int) -> None:
        super().__init__(meeting)
        self._address, self._index = (host, port), index
        self._hub = host
        self._connection: socket.socket | None = None
        _thread("peers-member", self._stay_connected)
        _thread("peers-beat", self._every_beat, lambda: self._say({}))

    @property
    def store_host(self) -> str:
        return self._hub

    def missing(self) -> str:
        return "replica 0"

    def report_lost(self, generation: int, why: str) -> None:
        self._say({"lost": generation, "why": why})

    def close(self) -> None:
        super().close()
        if self._connection is not None:
            _shut(self._connection)

    def _stay_connected(self) -> None:
        while not self._closed.is_set():
            # not there yet, or gone: DNS says so by an OSError too
            with (
                contextlib.suppress(OSError, ValueError),
                socket.create_connection(self._address, CONNECT_SECONDS) as connection,
            ):
                self._attend(connection)
            self._connection = None
            self._over("replica 0 is lost")
            if self.alone_since is None:
                self.alone_since = time.monotonic()
            self._closed.wait(RETRY_SECONDS)

    def _attend(self, connection: socket.socket) -> None:
        connection.settimeout(self.meeting.silence_seconds)
        hello = {"run": self.meeting.run, "job": self.meeting.job_uid, "index": self._index}
        _send(connection, {"hello": hello})
        self._hub, self._connection = connection.getpeername()[0], connection
        for message in _lines(connection):
            if "generation" in message:
                self.alone_since = None
                self.generation = int(message["generation"])
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
            message = json.loads(line)
            if not isinstance(message, dict):
                raise ValueError("not a message")
            yield message


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
