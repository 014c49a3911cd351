"""The limit of open files: raised at start as far as the system allows, and divided between clients and upstreams.

A request takes two files: its client's connection and the upstream's. Many systems start a process with a soft limit of
256 or 1,024, which a few hundred callers reach, and allow more (the hard limit of getrlimit(2)).
"""

import contextlib
import resource
from typing import NamedTuple

_ENOUGH = 1 << 18
"""More is of no use, and some programs visit each possible descriptor when they start a child process."""

_OWN_FILES = 64
"""Journal, index, threads, listening sockets and the calls of jobs."""

_LEAST_CLIENTS = 8


class OpenFiles(NamedTuple):
    """The soft limit, now and before."""

    limit: int
    before: int


def raise_open_files() -> OpenFiles:
    """Raise the soft limit to the hard one."""
    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = attainable_open_files()
    if before != resource.RLIM_INFINITY and before < wanted:
        with contextlib.suppress(OSError, ValueError):  # a sandbox may forbid it
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return OpenFiles(open_files(), before)


def attainable_open_files() -> int:
    """Return how many files a proxy could have open: to this it raises its soft limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)


def open_files() -> int:
    """Return how many files this process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENOUGH if soft == resource.RLIM_INFINITY else soft


def client_room(limit: int) -> int:
    """Return how many clients may be connected at once, so that each can also have a connection to the upstream."""
    return max(_LEAST_CLIENTS, (limit - _OWN_FILES) // 2)
