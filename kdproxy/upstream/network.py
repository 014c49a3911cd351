"""Whether this machine has a network, and whether a failed look-up means that a name does not exist.

A name counts as unknown if DNS says so (EAI_NONAME, EAI_NODATA: getaddrinfo(3)) while the machine has a route to the
internet. Without a route (a laptop that wakes up, a cluster node that boots) macOS reports every name as unknown, and
Linux reports EAI_AGAIN; both are temporary. No packet is sent. `.invalid` never exists (RFC 6761 section 6.4).
"""

import socket

_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Documentation addresses (RFC 5737, RFC 3849), which no host has: a route to them is the default route."""

_NO_SUCH_NAME = frozenset(
    number for name in ("EAI_NONAME", "EAI_NODATA") if (number := getattr(socket, name, None)) is not None
)


def has_route() -> bool:
    """Whether the kernel has a default route: a UDP socket is connected, which sends no packet."""
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
    """Whether a failed look-up means that the name does not exist, and not that DNS or the network is down."""
    if host.rstrip(".").lower().endswith(".invalid"):
        return True
    return isinstance(error, socket.gaierror) and error.errno in _NO_SUCH_NAME and has_route()
