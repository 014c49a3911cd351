"""What may have been billed: how often a question goes out, who is told what, and what clears it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from kdproxy.engine.fetch_request import FetchedResponse, GaveUp
from kdproxy.engine.lane import Refusal
from kdproxy.engine.ledger import CallOutcome
from kdproxy.engine.retry_policy import ATTEMPTS_WHILE_OTHERS_SUCCEED
from kdproxy.errors import KdproxyError, UpstreamFailed
from tests.kdproxy.engine.scripted_provider import (
    CUT,
    JSON,
    SSE,
    Answer,
    Canned,
    Provider,
    Recognised,
    ScriptedFetcher,
    error,
    in_turn,
    virtually,
    well,
)

SILENT = UpstreamFailed("The upstream did not begin to answer.", hint="x", was_sent=True)
PAGE = b"<!DOCTYPE html><html><title>Bad gateway</title></html>"
BILLED = [
    *(CUT, SILENT),
    *(error(status) for status in (502, 504, 520, 524, 527, 598, 599)),
    Canned(502, (("content-type", "text/html"),), [PAGE]),
    # No answer in a 200.
    Canned(200, JSON, []),
    Canned(200, JSON, [b"  \n"]),
    Canned(200, JSON, [PAGE]),
    Canned(200, SSE, [b": ping\n\n"]),
    Canned(200, SSE, [b'data: {"error":{"message":"x","type":"nobody_knows"}}\n\n']),
]


def _again(bad: Any) -> Answer:
    """Give the same each time, from its beginning."""
    return lambda now, request: bad if isinstance(bad, UpstreamFailed) else replace(bad, position=0)


@pytest.mark.parametrize("bad", BILLED, ids=lambda each: str(each)[:60])
def test_a_paid_question_that_always_fails_is_three_calls_and_the_spaced_ones(bad: Any) -> None:
    async def main() -> None:
        provider = Provider(_again(bad), health=well)
        scripted = ScriptedFetcher(provider)
        for number in range(5):
            result = await scripted.buy(question="q")
            assert isinstance(result, GaveUp)
            assert result.billed_calls == 3
            assert number or asyncio.get_running_loop().time() > 1
        assert len(provider.sent_at) == 3
        assert scripted.ledger.calls == {CallOutcome.MAYBE_BILLED: 3}
        for spacing in (10, 20, 40, 80, 160, 320, 600, 600):
            await asyncio.sleep(spacing - 1)
            await scripted.buy(question="q")
            before = len(provider.sent_at)
            await asyncio.sleep(1)
            await scripted.buy(question="q")
            assert len(provider.sent_at) == before + 1
        # Others are not concerned, and neither is the upstream.
        assert scripted.queue.health.breaker.opened == 0

    virtually(main)


def test_a_success_clears_what_a_question_owes() -> None:
    async def main() -> None:
        provider = Provider(in_turn(CUT, CUT, Canned(), CUT, CUT, Canned()))
        scripted = ScriptedFetcher(provider)
        for _ in range(2):
            assert isinstance(await scripted.buy(question="q"), FetchedResponse)
        assert len(scripted.fetcher.history) == 0
        assert scripted.ledger.calls == {CallOutcome.MAYBE_BILLED: 4, CallOutcome.ANSWERED: 2}

    virtually(main)


def test_what_costs_nothing_is_tried_again_without_a_count() -> None:
    async def main() -> None:
        provider = Provider(in_turn(*[CUT] * 10), health=well)
        assert isinstance(await ScriptedFetcher(provider, is_billed=False).buy(question="q"), FetchedResponse)
        assert len(provider.sent_at) == 11

    virtually(main)


def test_a_server_is_asked_what_it_is_before_its_question_is_given_up() -> None:
    async def main() -> None:
        provider = Provider(in_turn(*[CUT] * 10), health=well)
        scripted = ScriptedFetcher(provider)
        scripted.fetcher.billing = kinds = Recognised()
        assert isinstance(await scripted.buy(question="q"), FetchedResponse)
        assert (len(provider.sent_at), len(kinds.asked_at)) == (11, 1)
        assert kinds.asked_at[0] >= provider.sent_at[2]

    virtually(main)


def test_on_a_free_upstream_a_count_ends_it_while_others_succeed() -> None:
    async def main() -> None:
        provider = Provider(lambda now, request: CUT if request.body == b"bad" else Canned(), health=well)
        scripted = ScriptedFetcher(provider, is_billed=False)
        bad = asyncio.create_task(scripted.buy(body=b"bad"))
        while not bad.done():
            assert isinstance(await scripted.buy(), FetchedResponse)
            await asyncio.sleep(0.2)
        assert provider.bodies.count(b"bad") == ATTEMPTS_WHILE_OTHERS_SUCCEED

    virtually(main)


def test_a_page_in_place_of_an_error_is_tried_a_few_times_and_handed_on() -> None:
    provider = Provider(_again(Canned(403, (("content-type", "text/html"),), [PAGE])), health=well)
    result = virtually(lambda: ScriptedFetcher(provider).buy())
    assert isinstance(result, Refusal)
    assert (result.status, result.body, result.is_fatal, len(provider.sent_at)) == (403, PAGE, True, 3)


def test_a_page_under_404_is_tried_a_few_times_and_reported_as_a_path_that_is_not_there() -> None:
    provider = Provider(_again(Canned(404, (("content-type", "text/html"),), [PAGE])), health=well)
    with pytest.raises(KdproxyError) as told:
        virtually(lambda: ScriptedFetcher(provider).buy())
    assert (told.value.code, told.value.http_status, len(provider.sent_at)) == ("upstream_no_such_path", 404, 3)


def test_a_page_under_200_never_goes_out_as_an_answer() -> None:
    result = virtually(lambda: ScriptedFetcher(Provider(_again(Canned(200, JSON, [PAGE])), health=well)).buy())
    assert isinstance(result, GaveUp)
    assert result.last is not None
    assert (result.last.status, result.last.body) == (502, PAGE)
