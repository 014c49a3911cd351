"""A provider that is a function of time, and a fetcher with its lanes before it, in virtual time."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import orjson

from kdproxy.core.limits import Cost
from kdproxy.core.models import HeaderPairs, Upstream
from kdproxy.core.ports import UpstreamRequest
from kdproxy.core.provider_rules import Rules
from kdproxy.engine.fetch import Fetcher
from kdproxy.engine.fetch_request import EachBilled, FetchedResponse, FetchRequest, GaveUp, RetrySettings
from kdproxy.engine.flights import Flight
from kdproxy.engine.lane import Refusal
from kdproxy.engine.lanes import Lanes, LaneSettings
from kdproxy.engine.ledger import Ledger
from kdproxy.errors import UpstreamFailed
from kdproxy.providers.rules import TABLES
from kdproxy.testing.virtual import VirtualClock, VirtualLoop

UPSTREAM = Upstream(name="teacher", url="http://127.0.0.1:1/v1")
JSON: HeaderPairs = (("content-type", "application/json"),)
SSE: HeaderPairs = (("content-type", "text/event-stream"),)


@dataclass
class Canned:
    """The UpstreamResponse port over bytes that are there."""

    status: int = 200
    headers: HeaderPairs = JSON
    pieces: list[bytes] = field(default_factory=lambda: [b'{"id":"1"}'])
    content_length: int | None = None
    is_end_marked: bool = True
    position: int = 0

    async def chunk(self) -> bytes:
        self.position += 1
        return self.pieces[self.position - 1] if self.position <= len(self.pieces) else b""

    async def wait(self, ends_at: float) -> bool:
        return True

    async def chunks(self) -> AsyncIterator[bytes]:
        while chunk := await self.chunk():
            yield chunk

    async def read(self, limit_bytes: int) -> bytes:
        return b"".join(self.pieces)

    def close(self) -> None:
        pass


Answer = Callable[[float, UpstreamRequest], Canned | UpstreamFailed]


class Provider:
    """The UpstreamClient port: a function of time says what comes back, to a probe too unless `health` does."""

    def __init__(self, answer: Answer, *, seconds: float = 0.1, health: Answer | None = None) -> None:
        self._answer = answer
        self._health = health or answer
        self._seconds = seconds
        self.probed_at: list[float] = []
        self.bodies: list[bytes] = []
        self.sent_at: list[float] = []
        self.succeeded_at: list[float] = []
        self.in_flight = 0

    async def send(self, request: UpstreamRequest) -> Canned:
        now = asyncio.get_running_loop().time()
        if request.method == "GET":
            self.probed_at.append(now)
            found = self._health(now, request)
            if isinstance(found, UpstreamFailed):
                raise found
            return found
        self.sent_at.append(now)
        self.bodies.append(bytes(request.body))  # type: ignore[arg-type]
        self.in_flight += 1
        try:
            await asyncio.sleep(self._seconds)
        finally:
            self.in_flight -= 1
        answer = self._answer(now, request)
        if isinstance(answer, UpstreamFailed):
            raise answer
        if answer.status < 400:
            self.succeeded_at.append(now)
        return answer


def error(status: int, kind: str = "server_error", **headers: str) -> Canned:
    body = orjson.dumps({"error": {"type": kind, "code": kind, "message": "x"}})
    pairs = tuple((name.replace("_", "-"), value) for name, value in headers.items())
    return Canned(status, (*JSON, *pairs), [body])


def well(now: float, request: UpstreamRequest) -> Canned:
    """Answer a probe as a provider does that is up and wants a credential."""
    return error(401, "invalid_api_key")


def in_turn(*answers: Canned | UpstreamFailed) -> Answer:
    left = list(answers)
    return lambda now, request: left.pop(0) if left else Canned()


def virtually(main: Callable[[], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        return await main()

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


class Free(EachBilled):
    """A server of one's own, as the configuration says."""

    def is_billed(self, upstream: Upstream, model: str) -> bool:
        return False


class Recognised(EachBilled):
    """A server of one's own, once it has been asked."""

    def __init__(self) -> None:
        self.asked_at: list[float] = []

    def is_billed(self, upstream: Upstream, model: str) -> bool:
        return not self.asked_at

    async def find_out(self, upstream: Upstream) -> None:
        self.asked_at.append(asyncio.get_running_loop().time())


class ScriptedFetcher:
    """A fetcher with its lanes."""

    def __init__(
        self,
        provider: Provider,
        *keys: str,
        rules: Rules = TABLES["general"],
        attempts: int | None = None,
        seconds: float = 1_800,
        is_billed: bool = True,
        **settings: Any,
    ) -> None:
        randomness = random.Random(7)
        self.lanes = Lanes(VirtualClock(), otherwise=LaneSettings(**settings), jitter=randomness.random)
        retries = RetrySettings(total_seconds=seconds, max_attempts=attempts)
        self.ledger = Ledger()
        self.fetcher = Fetcher(
            provider,
            VirtualClock(),
            retries,
            jitter=randomness.random,
            ledger=self.ledger,
            billing=EachBilled() if is_billed else Free(),
        )
        self.queue = self.lanes.queue(UPSTREAM, keys or ("key",), "m", rules)
        self.rules = rules

    async def buy(
        self, flight: Flight | None = None, *, body: bytes = b"", question: Hashable = None
    ) -> FetchedResponse | Refusal | GaveUp:
        """Ask; each call is a question of its own unless `question` says which."""

        def request(key_index: int) -> UpstreamRequest:
            return UpstreamRequest(method="POST", url=UPSTREAM.url, headers=(("key", str(key_index)),), body=body)

        flight = flight or Flight(("x",))
        fetch_request = FetchRequest(
            request=request, cost=Cost(), rules=self.rules, whole_bytes=1 << 20, question=question
        )
        result = await self.fetcher.fetch(fetch_request, flight, self.queue)
        if isinstance(result, FetchedResponse):
            async for _ in result.response.chunks():
                pass
            self.fetcher.completed(fetch_request, result)
        return result


LOST = UpstreamFailed("The upstream could not be reached.", hint="x", was_sent=False)
CUT = UpstreamFailed("The upstream cut its answer.", hint="x", was_sent=True)
