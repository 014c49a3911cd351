"""Forget, and buy exactly those again."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import Answer, Respond, ScriptedTeacher
from tests.wire import WireServer, json_answer

pytestmark = pytest.mark.asyncio

MODEL = "gpt-4.1"
Command = Callable[..., Awaitable[Any]]
Maker = Callable[..., Any]
BAD_JSON = orjson.dumps(
    {
        "id": "chatcmpl-bad",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": '{"cut'}, "finish_reason": "stop"}],
    }
)


@pytest.mark.parametrize("is_served", [True, False], ids=["with the proxy", "without"])
async def test_after_forget_the_next_run_buys_exactly_those(
    is_served: bool,
    teacher: ScriptedTeacher,
    send: Callable[..., Awaitable[Any]],
    tmp_path: Path,
    kdproxy: Command,
    chat: Maker,
) -> None:
    data = tmp_path / "data"
    questions = [
        chat("plain"),
        chat("please cut this", max_tokens=3),
        chat("as JSON", response_format={"type": "json_object"}),
        chat("streamed", stream=True),
    ]

    async def ask_all(proxy: RunningProxy) -> list[bytes]:
        return [(await send(f"{proxy.base_url}/chat/completions", question)).body for question in questions]

    async def forget(*wish: str) -> Any:
        ran = await kdproxy("forget", *wish, "--yes", "--json", "--data-dir", data)
        assert ran.code == 0, ran.err
        return ran.json

    async with run_proxy(teacher, data_dir=data) as proxy:
        teacher.script(Answer(), Answer(), Respond(headers={"Content-Type": "application/json"}, body=BAD_JSON))
        first = await ask_all(proxy)
        assert teacher.count() == 4
        assert await ask_all(proxy) == first
        if is_served:
            assert [(await forget(*wish))["withdrawn"] for wish in WISHES] == [1, 1, 1]
    if not is_served:
        assert [(await forget(*wish))["withdrawn"] for wish in WISHES] == [1, 1, 1]
    async with run_proxy(teacher, data_dir=data) as proxy:
        second = await ask_all(proxy)
        assert teacher.count() == 4 + 3
        assert [old == new for old, new in zip(first, second, strict=True)] == [True, False, False, False]
        assert await ask_all(proxy) == second
        assert teacher.count() == 4 + 3
    starts = 2 if is_served else 5  # of each process that has written: two proxies, and three times forget
    assert (data / "api_recovery.jsonl").read_bytes().count(b"\n") == starts + 4 + 3 + 3
    assert (await kdproxy("verify", "--data-dir", data)).code == 0


WISHES = [("--finish-reason", "length"), ("--invalid-json",), ("--match", "^streamed$")]
"""One for each of the last three questions."""


async def test_a_forgotten_answer_is_gone_from_the_memory_of_a_running_proxy(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Callable[..., Awaitable[Any]], kdproxy: Command, chat: Maker
) -> None:
    url = f"{proxy.base_url}/chat/completions"
    bought, hit = await send(url, chat("q")), await send(url, chat("q"))
    assert "hit" in hit.cache
    key = hit.cache.partition('key="')[2][:64] or hit.cache.partition("key=")[2][:64]
    ran = await kdproxy("forget", "--key", key[:12], "--yes", "--json", "--data-dir", proxy.data_dir)
    assert ran.json["samples"][0]["key"] == key
    again = await send(url, chat("q"))
    assert "fwd=miss" in again.cache
    assert again.body != bought.body
    assert teacher.count() == 2


async def test_what_todays_rules_would_not_keep_is_named_withdrawn_and_bought_anew(
    send: Callable[..., Awaitable[Any]], tmp_path: Path, kdproxy: Command, chat: Maker
) -> None:
    """Such answers are there from releases that took `[DONE]` or a whole JSON text for an end."""
    data = tmp_path / "data"
    message = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": None}
    bad, good = json_answer({"choices": [message]}), json_answer({"choices": [{**message, "finish_reason": "stop"}]})
    async with WireServer([bad], [good]) as upstream:
        async with run_proxy({"u": {"url": upstream.base_url, "end": "done"}}, data_dir=data) as proxy:
            assert "stored" in (await send(f"{proxy.base_url}/chat/completions", chat("q"))).cache
        assert (await kdproxy("verify", "--data-dir", data)).code == 0
        ran = await kdproxy("verify", "--answers", "--data-dir", data)
        assert (ran.code, b"it has no finish reason" in ran.out) == (1, True)
        assert "kdproxy forget --broken" in ran.err
        assert (await kdproxy("forget", "--broken", "--yes", "--json", "--data-dir", data)).json["withdrawn"] == 1
        assert (await kdproxy("verify", "--answers", "--data-dir", data)).code == 0
        async with run_proxy({"u": {"url": upstream.base_url}}, data_dir=data) as proxy:
            for _ in range(2):
                got = await send(f"{proxy.base_url}/chat/completions", chat("q"))
                assert b"stop" in got.body
        assert len(upstream.requests) == 2
