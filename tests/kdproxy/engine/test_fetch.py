"""The loop that buys, against an upstream that fails in every way, in virtual time: what is sent, and when."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from kdproxy.core.limits import Cost
from kdproxy.core.pacing.concurrency_limit import FIRST_RATE
from kdproxy.core.pacing.slow_start import FIRST_AT_ONCE
from kdproxy.core.ports import UpstreamRequest
from kdproxy.engine.attempts import SUSPECT_FROM
from kdproxy.engine.fetch_request import FetchedResponse, FetchRequest, GaveUp
from kdproxy.engine.flights import Flight, Flights, Phase
from kdproxy.engine.lane import Policy, Refusal
from kdproxy.engine.retry_policy import ATTEMPTS_WHILE_OTHERS_SUCCEED
from kdproxy.providers.rules import TABLES
from tests.kdproxy.engine.scripted_provider import (
    JSON,
    LOST,
    SSE,
    UPSTREAM,
    Canned,
    Provider,
    ScriptedFetcher,
    error,
    in_turn,
    virtually,
    well,
)


@pytest.mark.parametrize(
    "bad", [error(500), error(503), error(529), error(408), error(409), LOST], ids=lambda e: str(e)[:40]
)
def test_one_bad_moment_is_repaired(bad: Any) -> None:
    provider = Provider(in_turn(bad))
    assert isinstance(virtually(lambda: ScriptedFetcher(provider).buy()), FetchedResponse)
    assert len(provider.sent_at) == 2


def test_a_request_that_always_fails_ends_while_others_pass() -> None:
    """The same request breaks the server each time: that is no outage."""

    async def main() -> None:
        provider = Provider(lambda now, request: error(500) if request.body == b"bad" else Canned(), health=well)
        scripted = ScriptedFetcher(provider)
        bad = asyncio.create_task(scripted.buy(body=b"bad"))
        while not bad.done():
            assert isinstance(await scripted.buy(), FetchedResponse)
            await asyncio.sleep(0.2)
        result = bad.result()
        assert isinstance(result, GaveUp)
        assert result.last is not None
        assert (result.last.status, result.billed_calls) == (500, 0)
        assert provider.bodies.count(b"bad") == ATTEMPTS_WHILE_OTHERS_SUCCEED
        assert scripted.queue.health.breaker.opened == 0

    virtually(main)


def test_the_providers_wait_is_a_floor_for_everybody() -> None:
    async def main() -> None:
        provider = Provider(in_turn(error(429, "rate_limit_exceeded", retry_after="30")))
        scripted = ScriptedFetcher(provider)
        first = asyncio.create_task(scripted.buy())
        await asyncio.sleep(0.2)
        results = await asyncio.gather(first, *(scripted.buy() for _ in range(30)))
        assert all(isinstance(result, FetchedResponse) for result in results)
        assert min(provider.sent_at[1:]) >= 30.1

    virtually(main)


def test_a_rate_limit_is_not_a_failure_however_often_it_comes() -> None:
    provider = Provider(in_turn(*[error(429, "rate_limit_exceeded", retry_after="60")] * 50))
    assert isinstance(virtually(lambda: ScriptedFetcher(provider, attempts=2).buy()), FetchedResponse)


@pytest.mark.parametrize("callers", [1, 8, 64])
def test_an_outage_costs_few_probes_and_ends_gently(callers: int) -> None:
    """At most 1.10 attempts a minute for each distinct request, and success within 2 s of the permitted probe."""
    healed_at = 1_000.0

    async def main() -> tuple[Provider, list[Any]]:
        provider = Provider(lambda now, request: Canned() if now >= healed_at else error(503))
        scripted = ScriptedFetcher(provider)
        return provider, await asyncio.gather(*(scripted.buy() for _ in range(callers)))

    provider, results = virtually(main)
    assert all(isinstance(result, FetchedResponse) for result in results)
    # Once it is known to be down no question is a probe that has failed before: a fresh one is, or a GET.
    assert sum(at < healed_at for at in provider.sent_at) <= callers + SUSPECT_FROM
    attempts = [*provider.probed_at, *provider.sent_at]
    by_minute = Counter(int(at // 60) for at in attempts if at < healed_at)
    for minute in range(1, int(healed_at // 60)):
        assert by_minute[minute] <= 6
    probe = min(at for at in attempts if at >= healed_at)
    assert probe - healed_at <= 15
    assert provider.succeeded_at[0] - probe <= 2
    # No synchronised burst: the first success lets two in, these four, and so on.
    first = [at for at in provider.sent_at if probe <= at <= probe + 0.05]
    assert len(first) <= 2
    assert max(provider.sent_at) - probe < 10


def test_a_brown_out_is_not_an_outage() -> None:
    """One in ten fails: all are served, with few retries and without a pause."""

    async def main() -> Provider:
        randomness = random.Random(3)
        provider = Provider(lambda now, request: error(500) if randomness.random() < 0.1 else Canned())
        scripted = ScriptedFetcher(provider)
        results = await asyncio.gather(*(scripted.buy() for _ in range(1_000)))
        assert all(isinstance(result, FetchedResponse) for result in results)
        return provider

    provider = virtually(main)
    assert len(provider.sent_at) < 1_000 * 1.2
    assert max(provider.sent_at) < 60


def test_half_of_all_failing_is_slowed_down_by_the_budget() -> None:
    async def main() -> tuple[Provider, ScriptedFetcher]:
        randomness = random.Random(3)
        provider = Provider(lambda now, request: error(500) if randomness.random() < 0.5 else Canned())
        scripted = ScriptedFetcher(provider, attempts=50)
        await asyncio.gather(*(scripted.buy() for _ in range(300)))
        return provider, scripted

    _, scripted = virtually(main)
    assert scripted.queue.health.breaker.opened > 0


# -- fatal ------------------------------------------------------------------------------------------------------

SPENT = error(429, "insufficient_quota")


def test_a_spent_quota_fails_fast_in_the_providers_words() -> None:
    async def main() -> None:
        provider = Provider(lambda now, request: SPENT)
        scripted = ScriptedFetcher(provider)
        results = await asyncio.gather(*(scripted.buy() for _ in range(200)))
        assert all(isinstance(result, Refusal) and result.is_fatal and result.status == 429 for result in results)
        # What the first rate lets out in the 0.1 s before the first word came, one probe, and no more.
        assert len(provider.sent_at) <= FIRST_AT_ONCE + 0.1 * FIRST_RATE + 3
        assert asyncio.get_running_loop().time() < 5

    virtually(main)


def test_a_parked_run_continues_when_it_is_topped_up() -> None:
    paid_at = 7_200.0

    async def main() -> tuple[Provider, list[Any]]:
        provider = Provider(lambda now, request: Canned() if now >= paid_at else SPENT)
        scripted = ScriptedFetcher(provider, policy=Policy.PARK)
        return provider, await asyncio.gather(*(scripted.buy() for _ in range(100)))

    provider, results = virtually(main)
    assert all(isinstance(result, FetchedResponse) for result in results)
    held = [at for at in provider.sent_at if 60 < at < paid_at]
    assert len(held) <= 12
    assert min(provider.succeeded_at) <= paid_at + 900


def test_a_revoked_key_is_left_for_the_others() -> None:
    async def main() -> None:
        provider = Provider(lambda now, request: error(401) if ("key", "0") in request.headers else Canned())
        scripted = ScriptedFetcher(provider, "a", "b")
        results = await asyncio.gather(*(scripted.buy() for _ in range(100)))
        assert all(isinstance(result, FetchedResponse) for result in results)
        assert scripted.queue.lanes[0].stop is not None
        assert scripted.queue.lanes[1].stop is None

    virtually(main)


def test_the_only_key_being_bad_is_reported_as_it_is() -> None:
    provider = Provider(lambda now, request: error(401))
    result = virtually(lambda: ScriptedFetcher(provider).buy())
    assert isinstance(result, Refusal)
    assert (result.status, len(provider.sent_at)) == (401, 1)


def test_a_spent_key_is_left_for_the_others() -> None:
    async def main() -> None:
        provider = Provider(lambda now, request: SPENT if ("key", "0") in request.headers else Canned())
        scripted = ScriptedFetcher(provider, "a", "b")
        results = await asyncio.gather(*(scripted.buy() for _ in range(50)))
        assert all(isinstance(result, FetchedResponse) for result in results)

    virtually(main)


# -- errors dressed as answers ----------------------------------------------------------------------------------

OVERLOADED = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
START = b'event: message_start\ndata: {"type":"message_start","message":{"id":"m"}}\n\n'
TOKEN = b'event: content_block_delta\ndata: {"type":"content_block_delta","delta":{"text":"a"}}\n\n'


@pytest.mark.parametrize("cut", [1, 7, 30, len(OVERLOADED)])
def test_an_error_as_the_first_event_is_tried_again(cut: int) -> None:
    """Anthropic's 529 inside a 200, however the network cuts it."""
    dressed = Canned(200, SSE, [OVERLOADED[:cut], OVERLOADED[cut:]])
    provider = Provider(in_turn(dressed, Canned(200, SSE, [START, TOKEN])))
    result = virtually(lambda: ScriptedFetcher(provider, rules=TABLES["anthropic"]).buy())
    assert isinstance(result, FetchedResponse)
    assert len(provider.sent_at) == 2


@pytest.mark.parametrize("opening", [START, b": keep-alive\n\n", b'data: ""\n\n', START + b": x\n\n" + START])
@pytest.mark.parametrize("end", [OVERLOADED, b""], ids=["error", "end"])
def test_an_error_or_an_end_before_the_first_token_is_tried_again(opening: bytes, end: bytes) -> None:
    dressed = Canned(200, SSE, [opening, end] if end else [opening])
    provider = Provider(in_turn(dressed, Canned(200, SSE, [START, TOKEN])))
    result = virtually(lambda: ScriptedFetcher(provider, rules=TABLES["anthropic"]).buy())
    assert isinstance(result, FetchedResponse)
    assert len(provider.sent_at) == 2


@pytest.mark.parametrize("first", [START + TOKEN, b": keep-alive\n\n" + TOKEN, b"data: [DONE]\n\n"])
def test_what_has_begun_well_is_let_through_whole(first: bytes) -> None:
    """A later error is the answer's own, and not ours to hide."""

    async def main() -> bytes:
        provider = Provider(in_turn(Canned(200, SSE, [first[:3], first[3:], OVERLOADED])))
        scripted = ScriptedFetcher(provider, rules=TABLES["anthropic"])
        received = b""

        def request(key_index: int) -> UpstreamRequest:
            return UpstreamRequest(method="POST", url=UPSTREAM.url, headers=(), body=b"")

        fetch_request = FetchRequest(request=request, cost=Cost(), rules=scripted.rules, whole_bytes=1 << 20)
        result = await scripted.fetcher.fetch(fetch_request, Flight(("x",)), scripted.queue)
        assert isinstance(result, FetchedResponse)
        async for chunk in result.response.chunks():
            received += chunk
        assert len(provider.sent_at) == 1
        return received

    assert virtually(main) == first + OVERLOADED


def test_an_error_as_a_200_body_is_tried_again() -> None:
    dressed = Canned(200, JSON, [b'\n{"error":', b'{"code":502,"message":"x"}}'])
    provider = Provider(in_turn(dressed))
    assert isinstance(virtually(lambda: ScriptedFetcher(provider, rules=TABLES["openrouter"]).buy()), FetchedResponse)
    assert len(provider.sent_at) == 2


# -- leaving ----------------------------------------------------------------------------------------------------


def test_a_cancelled_fetch_gives_its_place_back() -> None:
    async def main() -> None:
        provider = Provider(lambda now, request: Canned(), seconds=5.0)
        scripted = ScriptedFetcher(provider, most_in_flight=1)
        tasks = [asyncio.create_task(scripted.buy()) for _ in range(5)]
        await asyncio.sleep(1)
        for task in tasks[:4]:
            task.cancel()
        result = await asyncio.wait_for(tasks[4], 10)
        assert isinstance(result, FetchedResponse)
        assert scripted.queue.lanes[0].pace.in_flight == 0
        assert len(provider.sent_at) == 2

    virtually(main)


@pytest.mark.parametrize("bad", [error(401, "invalid_api_key"), error(429, "insufficient_quota")], ids=["key", "quota"])
def test_what_nobody_waits_for_any_more_is_not_sent_with_the_next_key(bad: Canned) -> None:
    """The second lane is free at once: no wait in which the flight could be seen to be unwanted."""

    async def main() -> None:
        provider = Provider(in_turn(bad))
        scripted = ScriptedFetcher(provider, "one", "two", rules=TABLES["openai"])
        flights = Flights(detached_seconds=60)

        async def fly(flight: Flight) -> None:
            await scripted.buy(flight)

        flight = flights.start(("x",), fly)
        flights.join(flight)
        while flight.phase is not Phase.SENT:
            await asyncio.sleep(0)
        flights.leave(flight)
        await flights.wait_all()
        assert len(provider.sent_at) == 1
        assert [lane.pace.in_flight for lane in scripted.queue.lanes] == [0, 0]

    virtually(main)
