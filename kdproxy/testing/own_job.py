"""Measures jobs against a self-hosted server in virtual time, with and without our lanes.

All randomness is seeded, nothing waits in real time, and the engine is the one that ships.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdproxy.core.limits import Cost
from kdproxy.core.models import HeaderPairs, Upstream
from kdproxy.core.ports import UpstreamRequest
from kdproxy.core.server_kind import Recognition
from kdproxy.engine.fetch import Fetcher
from kdproxy.engine.fetch_request import FetchedResponse, FetchRequest, RetrySettings
from kdproxy.engine.flights import Flight
from kdproxy.engine.lanes import Lanes, LaneSettings
from kdproxy.errors import UpstreamFailed
from kdproxy.providers.rules import TABLES
from kdproxy.testing.virtual import VirtualClock, VirtualLoop

OWN = Upstream(name="own", url="http://127.0.0.1:8000/v1")
Serve = Callable[[int], Awaitable[None]]


@dataclass
class Answer:
    """The UpstreamResponse port over a short body."""

    status: int = 200
    headers: HeaderPairs = (("content-type", "application/json"),)
    content_length: int | None = None
    is_end_marked: bool = True
    pieces: list[bytes] = field(default_factory=lambda: [b'{"id":"1"}'])

    async def chunk(self) -> bytes:
        """Return what is left."""
        return self.pieces.pop() if self.pieces else b""

    async def wait(self, ends_at: float) -> bool:
        """All is there."""
        return True

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what is left."""
        while piece := await self.chunk():
            yield piece

    async def read(self, limit_bytes: int) -> bytes:
        """Return what is left."""
        return await self.chunk()

    def close(self) -> None:
        """Nothing is open."""


@dataclass
class Server:
    """The UpstreamClient port before a model; a body is the number of tokens."""

    serve: Serve
    deadline_seconds: float
    sent: int = 0
    timeouts: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    full_at: float = 0.0
    """When the most were in flight first."""

    async def send(self, request: UpstreamRequest) -> Answer:
        """Answer when the model has."""
        self.sent += 1
        self.in_flight += 1
        if self.in_flight > self.most_in_flight:
            self.most_in_flight, self.full_at = self.in_flight, asyncio.get_running_loop().time()
        try:
            assert isinstance(request.body, bytes)
            async with asyncio.timeout(self.deadline_seconds):
                await self.serve(int(request.body))
        except TimeoutError:
            self.timeouts += 1
            raise UpstreamFailed("Nothing came.", hint="x", code="first_byte_timeout", was_sent=True) from None
        finally:
            self.in_flight -= 1
        return Answer()


def _virtually(main: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await main()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


async def _callers(callers: int, tokens: Sequence[int], ask: Serve) -> float:
    """Ask all in a closed loop; return how long it took."""
    started, left = asyncio.get_running_loop().time(), iter(tokens)

    async def caller() -> None:
        for each in left:
            await ask(each)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return asyncio.get_running_loop().time() - started


def direct(serve: Callable[[], Serve], callers: int, tokens: Sequence[int]) -> float:
    """Return how long a job takes that asks a server itself, in virtual seconds."""
    return float(_virtually(lambda: _callers(callers, tokens, serve())))


def through_us(
    serve: Callable[[], Serve],
    callers: int,
    tokens: Sequence[int],
    *,
    deadline_seconds: float = 600.0,
    upstream: Upstream = OWN,
    found: Recognition | None = None,
) -> tuple[float, Server]:
    """Return how long a job takes through our lanes, in virtual seconds, and what the server saw.

    Args:
        serve: makes the server.
        callers: in a closed loop.
        tokens: what is asked.
        deadline_seconds: how long an answer may take.
        upstream: as configured.
        found: what is known of the server.
    """

    async def main() -> tuple[float, Server]:
        server = Server(serve(), deadline_seconds)
        lanes = Lanes(VirtualClock(), otherwise=LaneSettings(deadline_seconds=deadline_seconds))
        fetcher = Fetcher(server, VirtualClock(), RetrySettings(total_seconds=600, max_attempts=6))
        queue = lanes.queue(upstream, ("key",), "m", TABLES["general"])
        if found is not None:
            queue.recognise(found, is_free=True)
        numbers = iter(range(1_000_000))

        async def ask(count: int) -> None:
            def request(key_index: int) -> UpstreamRequest:
                return UpstreamRequest(method="POST", url=OWN.url, headers=(), body=str(count).encode())

            fetch_request = FetchRequest(request=request, cost=Cost(), rules=TABLES["general"], whole_bytes=1 << 20)
            result = await fetcher.fetch(fetch_request, Flight((str(next(numbers)),)), queue)
            assert isinstance(result, FetchedResponse)
            result.permit.completed()

        seconds = await _callers(callers, tokens, ask)
        assert queue.is_idle
        return seconds, server

    seconds, server = _virtually(main)
    return seconds, server
