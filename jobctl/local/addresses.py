"""An address of 127.0.0.0/8 for every index, unlike that of any other local pod on this machine."""

import random
import socket
from ipaddress import IPv4Address

_LOWEST, _HIGHEST = int(IPv4Address("127.1.0.1")), int(IPv4Address("127.254.255.254"))
_TRIES = 10_000


def reserve(count: int) -> list[tuple[str, socket.socket]]:
    """`count` addresses, each with the socket that holds it: closing that, or dying, gives the address back.

    A reservation is a name in Linux' abstract socket namespace: the kernel gives each to one process at a time,
    across users, homes and jobs, and it takes no port. Raises OSError if none is free.
    """
    found: list[tuple[str, socket.socket]] = []
    for _ in range(count + _TRIES):
        if len(found) == count:
            return found
        address = str(IPv4Address(random.randint(_LOWEST, _HIGHEST)))  # noqa: S311 - no secret
        if address.endswith((".0", ".255")):
            continue
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            holder.bind(f"\0jobctl.local/{address}")
        except OSError:
            holder.close()
            continue
        found.append((address, holder))
    raise OSError(f"no {count} free addresses of 127.0.0.0/8 after {_TRIES} tries")
