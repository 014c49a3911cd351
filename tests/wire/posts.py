"""Plays for the POSTs of a test alone: the proxy asks a server for its models with a GET, which is no question."""

from collections.abc import Callable

from tests.wire.answers import answer
from tests.wire.server import Play, Request, WireServer


def posts(upstream: WireServer) -> int:
    """Return how many POSTs came."""
    return sum(request.line.startswith("POST") for request in upstream.requests)


def to_posts(*plays: Play) -> Callable[[Request], Play]:
    """Play to each POST in turn, the last one for ever; a GET finds nothing."""
    left = list(plays)

    def play(request: Request) -> Play:
        if request.line.startswith("GET"):
            return [answer(b"{}", status="404 Not Found")]
        return left.pop(0) if len(left) > 1 else left[0]

    return play
