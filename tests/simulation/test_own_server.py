"""Jobs against one's own server in virtual time, through our lanes and past them. The goals are the benchmark's."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from kdproxy.core.limits import Cost
from kdproxy.core.models import HeaderPairs, Upstream
from kdproxy.core.ports import UpstreamRequest
from kdproxy.core.server_kind import Recognition, ServerKind
from kdproxy.engine.fetch import Delivery, Errand, Fetcher, RetrySettings
from kdproxy.engine.flights import Flight
from kdproxy.engine.lanes import Lanes, LaneSettings
from kdproxy.errors import UpstreamFailed
from kdproxy.providers.rules import TABLES
from kdproxy.testing.own_server import Batching, Slots, lengths
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
        return self.pieces.pop() if self.pieces else b""

    async def chunks(self) -> AsyncIterator[bytes]:
        while piece := await self.chunk():
            yield piece

    async def read(self, limit_bytes: int) -> bytes:
        return await self.chunk()

    def close(self) -> None:
        pass


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


def virtually(main: Callable[[], Awaitable[Any]]) -> Any:
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
    return float(virtually(lambda: _callers(callers, tokens, serve())))


def through_us(
    serve: Callable[[], Serve],
    callers: int,
    tokens: Sequence[int],
    *,
    deadline_seconds: float = 600.0,
    upstream: Upstream = OWN,
    found: Recognition | None = None,
) -> tuple[float, Server]:
    async def main() -> tuple[float, Server]:
        server = Server(serve(), deadline_seconds)
        lanes = Lanes(VirtualClock(), otherwise=LaneSettings(deadline_seconds=deadline_seconds))
        fetcher = Fetcher(server, VirtualClock(), RetrySettings(total_seconds=600, max_attempts=6))
        road = lanes.road(upstream, ("key",), "m", TABLES["general"])
        if found is not None:
            road.recognise(found, is_free=True)
        numbers = iter(range(1_000_000))

        async def ask(count: int) -> None:
            def request(key_index: int) -> UpstreamRequest:
                return UpstreamRequest(method="POST", url=OWN.url, headers=(), body=str(count).encode())

            errand = Errand(request=request, cost=Cost(), rules=TABLES["general"], whole_bytes=1 << 20)
            result = await fetcher.fetch(errand, Flight((str(next(numbers)),)), road)
            assert isinstance(result, Delivery)
            result.permit.done()

        seconds = await _callers(callers, tokens, ask)
        assert road.is_idle
        return seconds, server

    seconds, server = virtually(main)
    return seconds, server


CHAT = {"median": 256, "sigma": 0.77, "most": 4_096}
REASONING = {"median": 180, "sigma": 1.2, "most": 16_384}


@pytest.mark.parametrize(("callers", "count"), [(64, 1_000), (256, 2_000), (1_000, 4_000)])
@pytest.mark.parametrize("spread", [CHAT, REASONING], ids=["chat", "reasoning"])
def test_a_batching_server_is_used_as_if_nobody_stood_between(callers: int, count: int, spread: dict[str, Any]) -> None:
    """Nobody has told us what server it is: the width comes by time alone."""
    tokens = lengths(count, **spread)
    alone = direct(lambda: Batching().serve, callers, tokens)
    seconds, server = through_us(lambda: Batching().serve, callers, tokens)
    assert seconds <= 1.03 * alone
    assert server.most_in_flight == callers
    assert server.full_at <= 3.0


@pytest.mark.parametrize(("seconds_each", "deadline", "rounds"), [(10.0, 600.0, 2), (300.0, 3_600.0, 2)])
def test_long_answers_are_all_asked_for_at_once(seconds_each: float, deadline: float, rounds: int) -> None:
    tokens = [1] * (256 * rounds)
    alone = direct(lambda: Slots(256, seconds_each).serve, 256, tokens)
    seconds, server = through_us(
        lambda: Slots(256, seconds_each).serve,
        256,
        tokens,
        deadline_seconds=deadline,
        found=Recognition(ServerKind.VLLM),
    )
    assert seconds <= 1.03 * alone
    assert server.full_at == 0.0
    blind, server = through_us(lambda: Slots(256, seconds_each).serve, 256, tokens, deadline_seconds=deadline)
    # What nobody told us costs the time in which it widens, once.
    assert blind <= alone + 0.7
    assert server.full_at <= 0.7


@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("deadline", [60.0, 600.0])
@pytest.mark.parametrize("known", ["slots", "free"])
def test_a_small_server_answers_all_in_time(slots: int, deadline: float, known: str) -> None:
    tokens = [1] * 600
    alone = direct(lambda: Slots(slots, 2.0).serve, 256, tokens)
    upstream, found = OWN, None
    if known == "slots":
        found = Recognition(ServerKind.LLAMA_CPP, slots)
    else:
        upstream = OWN._replace(billed=False)
    seconds, server = through_us(
        lambda: Slots(slots, 2.0).serve, 256, tokens, deadline_seconds=deadline, upstream=upstream, found=found
    )
    assert server.timeouts == 0
    assert seconds <= 1.05 * alone
    if known == "slots":
        assert server.most_in_flight == 2 * slots
        assert server.sent == 600
