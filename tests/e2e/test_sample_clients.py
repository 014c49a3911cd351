"""The official clients ask within a run: unchanged, at once, in every form; and a job with a list of its own."""

import asyncio
from collections import Counter
from typing import Any

import anthropic
import openai
import pytest
from google import genai
from google.genai import types

from kdproxy.testing.proxy import RunningProxy
from kdproxy.testing.teacher import HoldAfter, ScriptedTeacher, ServerError

pytestmark = pytest.mark.asyncio

ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}


def openai_at(proxy: RunningProxy, place: str, **options: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{proxy.address}{place}/v1", api_key="x", **{"max_retries": 0, **options})


async def texts(client: openai.AsyncOpenAI, count: int, **more: Any) -> list[str]:
    answers = await asyncio.gather(*(client.chat.completions.create(**ASK, **more) for _ in range(count)))
    return [answer.choices[0].message.content for answer in answers]


async def test_64_callers_at_once_get_64_samples_and_the_same_ones_again(
    teacher: ScriptedTeacher, proxy: RunningProxy
) -> None:
    teacher.latency_seconds = 0.02
    async with openai_at(proxy, "/runs/r/attempts/a") as client:
        first = await texts(client, 64)
    assert len(set(first)) == 64
    async with openai_at(proxy, "/runs/r/attempts/b") as client:
        again = await texts(client, 64)
    assert Counter(again) == Counter(first)
    assert teacher.count() == 64


async def test_streams_that_are_read_to_their_end_or_left_at_done(
    teacher: ScriptedTeacher, proxy: RunningProxy
) -> None:
    async with openai_at(proxy, "/runs/r") as client:
        got = []
        for number in range(4):
            stream = await client.chat.completions.create(**ASK, stream=True)
            pieces = []
            async for chunk in stream:
                pieces.append(chunk.choices[0].delta.content or "")
                if number % 2 and chunk.choices[0].finish_reason is not None:
                    await stream.close()  # as scripts do that stop at the finish reason
                    break
            got.append("".join(pieces))
    assert len(set(got)) == 4
    assert teacher.count() == 4


async def test_a_stream_that_is_left_in_the_middle_is_given_to_the_next_request(
    teacher: ScriptedTeacher, proxy: RunningProxy
) -> None:
    gate = asyncio.Event()
    teacher.script(HoldAfter(events=2, gate=gate))
    async with openai_at(proxy, "/runs/r") as client:
        stream = await client.chat.completions.create(**ASK, stream=True)
        await anext(aiter(stream))
        await stream.close()
        await until_no_waiter(proxy)
        following = await client.chat.completions.with_raw_response.create(**ASK, stream=True)
        gate.set()
        assert following.headers["Kdproxy-Sample"] == "0"
        assert [chunk async for chunk in following.parse()]
    assert teacher.count() == 1


async def test_a_client_that_times_out_and_retries_gets_its_own_sample(
    teacher: ScriptedTeacher, proxy: RunningProxy
) -> None:
    teacher.latency_seconds = 0.4
    async with openai_at(proxy, "/runs/r", timeout=0.25, max_retries=6) as client:
        got = await texts(client, 8)
    assert len(set(got)) == 8
    assert teacher.count() == 8


async def test_errors_and_retries_of_the_client_skip_no_sample(teacher: ScriptedTeacher, proxy: RunningProxy) -> None:
    teacher.script(*[ServerError(400) if number % 2 else ServerError(409) for number in range(6)])
    async with openai_at(proxy, "/runs/r", max_retries=8) as client:
        got: list[Any] = []
        while len(got) < 5:
            try:
                raw = await client.chat.completions.with_raw_response.create(**ASK)
                got.append(raw.headers["Kdproxy-Sample"])
            except openai.APIStatusError:
                continue
    assert got == ["0", "1", "2", "3", "4"]


async def test_anthropic_and_gemini_count_the_same_way(teacher: ScriptedTeacher, proxy: RunningProxy) -> None:
    base = f"{proxy.address}/runs/r/attempts/a"
    async with anthropic.AsyncAnthropic(base_url=base, api_key="x", max_retries=0) as client:
        asked: dict[str, Any] = {"model": "claude", "max_tokens": 50, "messages": ASK["messages"]}
        told = [(await client.messages.create(**asked)).content[0] for _ in range(3)]
    gemini = genai.Client(api_key="x", http_options={"base_url": base})
    try:
        said = [await gemini_text(gemini) for _ in range(3)]
        fixed = [await gemini_text(gemini, temperature=0) for _ in range(2)]
    finally:
        await gemini.aio.aclose()
        gemini.close()
    assert len({part.text for part in told if part.type == "text"}) == 3
    assert len(set(said)) == 3
    assert len(set(fixed)) == 1
    assert teacher.count() == 7


async def gemini_text(client: genai.Client, **config: Any) -> str | None:
    wanted = types.GenerateContentConfig(**config)
    answer = await client.aio.models.generate_content(model="gemini-2.5-flash", contents="Why?", config=wanted)
    return answer.text


async def test_n_choices_are_one_sample(teacher: ScriptedTeacher, proxy: RunningProxy) -> None:
    for attempt in "ab":
        async with openai_at(proxy, f"/runs/r/attempts/{attempt}") as client:
            sets = [await client.chat.completions.create(**ASK, n=4) for _ in range(2)]
        assert [len(each.choices) for each in sets] == [4, 4]
        assert len({choice.message.content for each in sets for choice in each.choices}) == 8
    assert teacher.count() == 2


async def test_rollouts_with_a_scope_each_are_the_same_in_every_attempt(
    teacher: ScriptedTeacher, proxy: RunningProxy
) -> None:
    """datatrove-like: each rollout asks each document once; rollouts run at once, in any order."""

    async def rollout(attempt: str, scope: int) -> str:
        async with openai_at(proxy, f"/runs/r/attempts/{attempt}/scopes/rollout-{scope}") as client:
            return (await texts(client, 1))[0]

    first = await asyncio.gather(*(rollout("a", scope) for scope in range(6)))
    again = await asyncio.gather(*(rollout("b", scope) for scope in reversed(range(6))))
    assert len(set(first)) == 6
    assert again[::-1] == first
    assert teacher.count() == 6


async def until(condition: Any) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def until_no_waiter(proxy: RunningProxy) -> None:
    await until(lambda: all(flight.waiters == 0 for flight in proxy.app._flights._tasks))
