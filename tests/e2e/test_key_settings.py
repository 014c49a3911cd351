"""What an upstream's settings add to the key and leave out."""

from typing import Any

import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
BASE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "temperature": 0}


async def test_text_that_a_tool_puts_into_each_prompt_can_be_ignored(
    teacher: ScriptedTeacher, send: Any, parse_cache_status: Any
) -> None:
    rules = ["messages[0].content~Today is [0-9-]+\\.", "system[0].text~^x-anthropic-billing-header:.*"]
    table = {"teacher": {"url": teacher.base_url, "ignore": rules}}

    def chat(day: str, question: str = "Why?") -> dict[str, Any]:
        return {**BASE, "messages": [{"role": "user", "content": f"Today is {day}. {question}"}]}

    async with run_proxy(table, data_dir=None) as proxy:
        first = await send(proxy.address + CHAT, chat("2026-11-29"))
        assert parse_cache_status(first.cache)["ignored"] == "messages[0].content"
        again = await send(proxy.address + CHAT, chat("2026-11-30"))
        said = parse_cache_status(again.cache)
        assert (again.body, said["hit"], said["ignored"]) == (first.body, True, "messages[0].content")
        assert teacher.count() == 1
        assert (await send(proxy.address + CHAT, chat("2026-11-30", "How?"))).body != first.body
        plain = await send(proxy.address + CHAT, BASE)
        assert "ignored" not in parse_cache_status(plain.cache)
        # the provider gets what was sent, the journal keeps what was sent
        assert teacher.calls[1].json == chat("2026-11-30", "How?")
        billed = [
            {
                "model": "m",
                "max_tokens": 9,
                "system": [{"type": "text", "text": f"x-anthropic-billing-header: cch={number};"}],
                "messages": BASE["messages"],
            }
            for number in (1, 2)
        ]
        headers = {"anthropic-version": "2023-06-01"}
        one, other = [await send(f"{proxy.address}/v1/messages", body, headers=headers) for body in billed]
        assert (one.status, other.body) == (200, one.body)


async def test_without_the_setting_nothing_is_ignored(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    for day in ("29", "30"):
        body = {**BASE, "messages": [{"role": "user", "content": f"Today is the {day}. Why?"}]}
        assert "ignored" not in (await send(proxy.address + CHAT, body)).cache
    assert teacher.count() == 2


async def test_an_upstreams_own_routing_headers_are_in_the_key_and_never_in_clear(
    teacher: ScriptedTeacher, send: Any
) -> None:
    table = {"teacher": {"url": teacher.base_url, "key_headers": ["X-Team-Route"]}}
    async with run_proxy(table) as proxy:
        for number, headers in enumerate(
            [
                {},
                {"x-team-route": "canary-a"},
                {"X-TEAM-ROUTE": "canary-b"},
                {"x-portkey-config": '{"key":"canary-c"}'},
            ],
            start=1,
        ):
            for _ in range(2):
                await send(proxy.address + CHAT, BASE, headers=headers)
            assert teacher.count() == number
        await send(proxy.address + CHAT, BASE, headers={"x-portkey-trace-id": "1", "Helicone-Session-Id": "2"})
        assert teacher.count() == 4
        files = [file for file in proxy.data_dir.rglob("*") if file.is_file()]
        assert not any(b"canary" in file.read_bytes() for file in files)
