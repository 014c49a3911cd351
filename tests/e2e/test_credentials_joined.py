"""One question, asked with two credentials at once: an answer is shared, a refusal of the one is not the other's."""

import asyncio
from typing import Any

import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy
from tests.wire import Play, Request, WireServer, chat, json_answer

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
QUESTION = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
SPENT = {
    "error": {"message": "You exceeded your current quota.", "type": "insufficient_quota", "code": "insufficient_quota"}
}
REFUSALS = {
    "unknown": json_answer({"error": {"code": "invalid_api_key"}}, status="401 Unauthorized"),
    "unpaid": json_answer({"error": {"message": "Insufficient Balance"}}, status="402 Payment Required"),
    "not allowed": json_answer({"error": {"message": "No access."}}, status="403 Forbidden"),
    "spent": json_answer(SPENT, status="429 Too Many Requests"),
}


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}"}


async def until_joined(proxy: RunningProxy, waiters: int) -> None:
    async with asyncio.timeout(10):
        while not any(flight.waiters == waiters for flight in proxy.app._flights._tasks):
            await asyncio.sleep(0)


class Provider:
    """Refuses one key, once the test lets it; answers all others."""

    def __init__(self, refusal: bytes) -> None:
        self.refusal = refusal
        self.may_answer = asyncio.Event()
        self.keys: list[str] = []

    def __call__(self, request: Request) -> Play:
        name = request.headers["authorization"].removeprefix("Bearer ")
        self.keys.append(name)
        return [self.may_answer, self.refusal] if name == "bad" else [chat("fine")]


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_joiners_whose_leaders_credential_is_refused_lead_with_their_own(send: Any, refusal: str) -> None:
    provider = Provider(REFUSALS[refusal])
    async with WireServer(provider) as upstream, run_proxy(upstream.url) as proxy:
        leader = asyncio.create_task(send(proxy.address + CHAT, QUESTION, headers=key("bad")))
        await upstream.wait_for_requests(1)
        same = asyncio.create_task(send(proxy.address + CHAT, QUESTION, headers=key("bad")))
        others = [asyncio.create_task(send(proxy.address + CHAT, QUESTION, headers=key("good"))) for _ in range(5)]
        await until_joined(proxy, 7)
        provider.may_answer.set()
        got = await asyncio.gather(*others)
        refused = [await leader, await same]
    assert {answer.status for answer in got} == {200}
    assert all(b"fine" in answer.body for answer in got)
    # Nobody is told what another one's credential got, and who has the same asks no second time.
    assert {answer.status for answer in refused} == {int(REFUSALS[refusal].split()[1])}
    assert provider.keys == ["bad", "good"]


async def test_who_joins_what_is_held_for_its_quota_leads_and_the_held_one_gets_the_answer(send: Any) -> None:
    provider = Provider(REFUSALS["spent"])
    provider.may_answer.set()
    async with WireServer(provider) as upstream, run_proxy(upstream.url, spent_policy="park") as proxy:
        leader = asyncio.create_task(send(proxy.address + CHAT, QUESTION, headers=key("bad")))
        async with asyncio.timeout(10):
            while not any(lane["stopped"] for lane in proxy.app.lanes()):
                await asyncio.sleep(0)
        got = await send(proxy.address + CHAT, QUESTION, headers=key("good"))
        held = await leader
    assert (got.status, held.status) == (200, 200)
    assert held.body == got.body
    assert provider.keys == ["bad", "good"]


@pytest.mark.parametrize("form", [{}, {"stream": True}], ids=["json", "stream"])
@pytest.mark.parametrize("policy", ["fail", "park"])
async def test_a_joiner_that_is_held_by_bytes_leads_with_its_own(http: Any, send: Any, policy: str, form: Any) -> None:
    """Its head is out by then: the leader's refusal would reach it as an error in the body."""
    provider = Provider(REFUSALS["spent"])
    settings = {"keep_alive_seconds": 0.05, "spent_policy": policy}
    asked = {**QUESTION, **form}
    async with WireServer(provider) as upstream, run_proxy(upstream.url, **settings) as proxy:
        url = proxy.address + CHAT
        leader = asyncio.create_task(send(url, asked, headers=key("bad")))
        await upstream.wait_for_requests(1)
        async with http.post(url, json=asked, headers=key("good")) as joiner:
            await joiner.content.readany()  # held
            provider.may_answer.set()
            got = await joiner.read()
        assert b"fine" in got
        assert b"quota" not in got
        assert provider.keys == ["bad", "good"]
        await asyncio.gather(leader, return_exceptions=True)  # its own refusal, too late for a status


async def test_an_answer_is_shared_across_credentials(send: Any) -> None:
    release = asyncio.Event()
    async with WireServer([release, chat("fine")]) as upstream, run_proxy(upstream.url) as proxy:
        asked = [
            asyncio.create_task(send(proxy.address + CHAT, QUESTION, headers=key(f"key {number}")))
            for number in range(4)
        ]
        await until_joined(proxy, 4)
        release.set()
        got = await asyncio.gather(*asked)
        assert {answer.status for answer in got} == {200}
        assert len(upstream.requests) == 1
