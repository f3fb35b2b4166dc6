"""Where the replicas of a training group meet, and how they know each other: index 0 writes it beside its lease.

lease/0/NNNNNN.meeting = {"token", "store", "hub"}: a random token of this attempt and the two ports that index 0 found
free. Only the group's own user can read it (mode 0600). The token itself never goes over a connection: what both sides
show are different proofs of it, so whoever listens at an old port learns nothing that opens another door.

Standard library only: the supervisor imports this.
"""

import contextlib
import errno
import hashlib
import hmac
import json
import os
import secrets
import socket
import stat
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from workers import storage
from workers.errors import BadConfigError, WorkerError

SUFFIX = ".meeting"
PORTS = 32  # how many are tried, one after the other
LONGEST_FILE = 4096
_TAKEN = {errno.EADDRINUSE, errno.EACCES}


@dataclass(frozen=True)
class Place:
    """Index 0's ports, and the secret of its attempt."""

    token: str
    store: int
    hub: int

    def proof(self, who: str) -> str:
        """What only those can know who know the token: another one for each `who`."""
        return hmac.new(self.token.encode(), who.encode(), hashlib.sha256).hexdigest()

    def is_proof(self, who: str, shown: object) -> bool:
        return isinstance(shown, str) and hmac.compare_digest(self.proof(who).encode(), shown.encode())


def new_token() -> str:
    return secrets.token_hex(16)


def announce(directory: Path, number: int, place: Place) -> None:
    """Write the place as holder of lease `number`, and remove what earlier holders wrote."""
    final = directory / f"{number:06d}{SUFFIX}"
    temporary = directory / f".tmp-{final.name}-{secrets.token_hex(4)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(asdict(place)).encode())
            file.flush()
            storage.fsync(file.fileno())
        temporary.replace(final)
    finally:
        temporary.unlink(missing_ok=True)
    storage.sync_directory(directory)
    for older, path in _announced(directory):
        if older < number:
            with contextlib.suppress(OSError):
                path.unlink()


def find(directory: Path) -> Place | None:
    """What the newest holder wrote; None if that is nothing sound. Raises OSError where it can't be read."""
    found = max(_announced(directory), default=None)
    return _read(found[1]) if found else None


def hold(host: str, first: int) -> socket.socket:
    """A socket at the first free port from `first` on. Whoever holds it keeps all others from the port.

    Raises BadConfigError if none is free, WorkerError if this address has no ports at all.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in range(first, min(first + PORTS, 65536)):
        held = socket.socket(family, socket.SOCK_STREAM)
        try:
            held.bind((host, port))  # without SO_REUSEADDR, by which two may hold a port as long as neither listens
        except OSError as error:
            held.close()
            if error.errno not in _TAKEN:
                raise WorkerError(f"replicas cannot meet at {host}:{port}: {error.strerror}") from error
        else:
            return held
    raise BadConfigError(
        f"replicas cannot meet at {host}: none of the ports {first} to {first + PORTS - 1} is free; "
        "name the first of another range with the environment variable JOBCTL_STORE_PORT"
    )


def listen(descriptor: int, backlog: int) -> None:
    """Listen at a held port, in the process that inherited it."""
    with socket.socket(fileno=os.dup(descriptor)) as held:
        # connections of the generation before may linger; from here on listening keeps others from the port
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.listen(backlog)


def hang_up(held: socket.socket) -> None:
    """Have nobody listen at a held port: connections are refused until somebody does again."""
    if held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):  # one that never listened would be spoilt by it
        held.shutdown(socket.SHUT_RDWR)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)


def _announced(directory: Path) -> Iterator[tuple[int, Path]]:
    for path in directory.iterdir() if directory.is_dir() else ():
        number = path.name.removesuffix(SUFFIX)
        if path.name.endswith(SUFFIX) and number.isascii() and number.isdigit():
            yield int(number), path


def _read(path: Path) -> Place | None:
    """None for what is no such file: a FIFO, too much, other content. Raises OSError, also for a link."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return None
        data = file.read(LONGEST_FILE + 1)
    with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError):
        found = json.loads(data)
        token, ports = found["token"], (found["store"], found["hub"])
        if isinstance(token, str) and token and all(type(port) is int and 0 < port < 65536 for port in ports):
            return Place(token, *ports)
    return None
