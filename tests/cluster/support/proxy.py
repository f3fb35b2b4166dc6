"""A proxy in front of the API server that goes silent, cuts its connections or refuses new ones, as a test tells it."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Literal, Self

Mood = Literal["passing", "silent", "refusing"]
CHUNK_BYTES = 65_536


class Proxy:
    """Passes bytes on to `target` while it is `passing`.

    `silent` keeps every connection open, takes new ones, and lets nothing through: a hung server. `refusing` cuts all
    connections and closes the port: a server that is down.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._passes = threading.Event()
        self._passes.set()
        self._open: list[socket.socket] = []
        self.connections = 0
        self._accept()

    @property
    def address(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def become(self, mood: Mood) -> None:
        if mood == "passing":
            if self._listener.fileno() < 0:
                self._listener = socket.create_server(("127.0.0.1", self.port))
                self._accept()
            self._passes.set()
            return
        self._passes.clear()
        if mood == "refusing":
            _close(self._listener)
            self.cut()

    def cut(self) -> None:
        """Ends every connection, as a load balancer that is replaced does; new ones are as before."""
        gone, self._open = self._open, []
        for one in gone:
            _close(one)

    def close(self) -> None:
        self.become("refusing")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        threading.Thread(target=self._take, args=(self._listener,), daemon=True).start()

    def _take(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:  # closed
                return
            self.connections += 1
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            self._open += [client, server]
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._passes.wait()
                sink.sendall(data)
        _close(source)
        _close(sink)


def _close(one: socket.socket) -> None:
    """Also wakes a thread that waits on it."""
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
