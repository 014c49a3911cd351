"""An upstream that is down, and one question that fails alone: who is held, who is not, and what the probe is."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from kdproxy.core.ports import UpstreamRequest
from kdproxy.engine.fetch_request import FetchedResponse, GaveUp
from kdproxy.engine.ledger import CallOutcome
from kdproxy.providers.rules import TABLES
from tests.kdproxy.engine.scripted_provider import CUT, LOST, Canned, Provider, ScriptedFetcher, error, virtually, well


@pytest.mark.parametrize(
    "bad", [error(529, "overloaded_error"), LOST, error(503), error(500)], ids=lambda e: str(e)[:40]
)
@pytest.mark.parametrize("is_seen", [True, False], ids=["probe sees it", "only questions show it"])
@pytest.mark.parametrize("callers", [1, 4, 256])
def test_a_ten_minute_outage_fails_nobody(bad: Any, is_seen: bool, callers: int) -> None:
    async def main() -> tuple[Provider, list[Any]]:
        provider = Provider(lambda now, request: Canned() if now >= 600 else bad, health=None if is_seen else well)
        scripted = ScriptedFetcher(provider)
        return provider, await asyncio.gather(*(scripted.buy() for _ in range(callers)))

    provider, results = virtually(main)
    assert all(isinstance(result, FetchedResponse) for result in results)
    # Fewer callers than open a breaker go by their own back-off; more are held, and then few probes go.
    assert sum(at < 600 for at in provider.sent_at) <= min(90 * callers, 3 * callers + 360)
    assert max(provider.sent_at) < 650


def test_a_restart_of_an_own_server_fails_nobody() -> None:
    """256 under way are reset, then ten minutes of refused connections, then it is back."""

    async def main() -> tuple[ScriptedFetcher, list[Any]]:
        def answer(now: float, request: UpstreamRequest) -> Any:
            return CUT if now < 1 else LOST if now < 601 else Canned()

        scripted = ScriptedFetcher(Provider(answer), rules=TABLES["vllm"], most_in_flight=256)
        return scripted, await asyncio.gather(*(scripted.buy() for _ in range(256)))

    scripted, results = virtually(main)
    assert all(isinstance(result, FetchedResponse) for result in results)
    assert scripted.ledger.calls[CallOutcome.MAYBE_BILLED] <= 256


def test_one_body_that_crashes_its_server_makes_nobody_wait() -> None:
    """It fails alone, five times and more: no breaker opens, and a healthy question goes at once."""

    async def main() -> None:
        provider = Provider(lambda now, request: CUT if request.body == b"bad" else Canned(), health=well)
        scripted = ScriptedFetcher(provider, is_billed=False)
        bad = asyncio.create_task(scripted.buy(body=b"bad"))
        for _ in range(20):
            await asyncio.sleep(1)
            before = asyncio.get_running_loop().time()
            assert isinstance(await scripted.buy(), FetchedResponse)
            assert asyncio.get_running_loop().time() - before < 0.2
        assert scripted.queue.health.breaker.opened == 0
        bad.cancel()

    virtually(main)


@pytest.mark.parametrize("is_first", [True, False], ids=["bad ones first", "bad ones between"])
@pytest.mark.parametrize("is_billed", [True, False], ids=["billed", "free"])
@pytest.mark.parametrize("bad", [CUT, error(500)], ids=["cut", "500"])
def test_eight_bad_prompts_among_eighty_do_not_delay_the_good_ones(bad: Any, is_billed: bool, is_first: bool) -> None:
    async def main() -> float:
        provider = Provider(lambda now, request: bad if request.body == b"bad" else Canned(), health=well, seconds=0.5)
        scripted = ScriptedFetcher(provider, is_billed=is_billed)
        asked = [b"bad"] * 8 + [b""] * 72 if is_first else ([b"bad"] + [b""] * 9) * 8
        tasks = [(body, asyncio.create_task(scripted.buy(body=body))) for body in asked]
        results = await asyncio.gather(*(task for body, task in tasks if not body))
        assert all(isinstance(result, FetchedResponse) for result in results)
        took = asyncio.get_running_loop().time()
        for _, task in tasks:
            task.cancel()
        return took

    async def undisturbed() -> float:
        scripted = ScriptedFetcher(Provider(lambda now, request: Canned(), seconds=0.5))
        await asyncio.gather(*(scripted.buy() for _ in range(72)))
        return asyncio.get_running_loop().time()

    assert virtually(main) <= virtually(undisturbed) + 3


def test_a_failed_question_is_never_a_probe() -> None:
    """Everything is cut and a probe says nothing of use: each question goes out three times and no more."""

    async def main() -> Provider:
        provider = Provider(lambda now, request: CUT)
        scripted = ScriptedFetcher(provider)
        results = await asyncio.gather(*(scripted.buy(body=b"%d" % number) for number in range(40)))
        assert all(isinstance(result, GaveUp) and result.billed_calls == 3 for result in results)
        return provider

    provider = virtually(main)
    assert set(Counter(provider.bodies).values()) == {3}


def test_the_probe_is_a_question_that_has_not_failed_or_a_get() -> None:
    """Six questions are cut, and GETs find it down: none of the six goes out again, and the seventh shows it is up."""

    async def main() -> None:
        provider = Provider(
            lambda now, request: CUT if now < 60 else Canned(), health=lambda now, request: error(503), seconds=0.1
        )
        scripted = ScriptedFetcher(provider)
        failed = [asyncio.create_task(scripted.buy(body=b"%d" % number)) for number in range(6)]
        await asyncio.sleep(60)
        assert sorted(provider.bodies) == [b"%d" % number for number in range(6)]
        assert len(provider.probed_at) >= 4
        assert isinstance(await scripted.buy(body=b"fresh"), FetchedResponse)
        assert provider.bodies[6] == b"fresh"
        assert all(isinstance(result, FetchedResponse) for result in await asyncio.gather(*failed))

    virtually(main)
