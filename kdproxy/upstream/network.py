"""Whether this machine has a network at all, and whether a failed look-up says that a name does not exist.

A name counts as unknown where DNS says so (EAI_NONAME, EAI_NODATA: getaddrinfo(3)) while the machine has a route to the
outside. Without one (a laptop that wakes up, a cluster node that boots) macOS says the same of every name, and Linux
says EAI_AGAIN: both pass by themselves. No packet is sent. `.invalid` never exists (RFC 6761 section 6.4).
"""

import socket

_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that nobody has (RFC 5737, RFC 3849): a route to them is the route to everywhere."""

_NO_SUCH_NAME = frozenset(
    number for name in ("EAI_NONAME", "EAI_NODATA") if (number := getattr(socket, name, None)) is not None
)


def has_route() -> bool:
    """Whether the kernel knows a way out: a UDP socket is connected, which sends nothing."""
    for family, address in _ELSEWHERE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as way:
                way.setblocking(False)
                way.connect((address, 9))
        except OSError:
            continue
        return True
    return False


def is_unknown_name(host: str, error: OSError) -> bool:
    """Whether a failed look-up says that there is no such name, and not that DNS or the network is away."""
    if host.rstrip(".").lower().endswith(".invalid"):
        return True
    return isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME and has_route()
