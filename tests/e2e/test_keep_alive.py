"""Bytes that hold a client before its answer: official clients take them, nothing stores them, errors come late."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
import pytest_asyncio

from kdproxy.engine import lane as lane_module
from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import HoldAfter, InsufficientQuota, Respond, ScriptedTeacher
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio

CLAUDE: dict[str, Any] = {**ASK, "max_tokens": 9}
CLIENT_SECONDS = 0.5
"""After so long without a byte these clients give up."""
HELD_SECONDS = 1.0


@pytest_asyncio.fixture
async def proxy(teacher: ScriptedTeacher) -> AsyncIterator[RunningProxy]:
    async with run_proxy(teacher, keep_alive_seconds=0.05) as proxy:
        yield proxy


async def openai_json(ask: Any) -> Any:
    return await ask.openai.with_options(timeout=CLIENT_SECONDS).chat.completions.create(**ASK)


async def openai_stream(ask: Any) -> Any:
    client = ask.openai.with_options(timeout=CLIENT_SECONDS)
    return [chunk async for chunk in await client.chat.completions.create(**ASK, stream=True)]


async def openai_sync(ask: Any) -> Any:
    client = ask.openai_sync.with_options(timeout=CLIENT_SECONDS)
    return await asyncio.to_thread(client.chat.completions.create, **ASK)


async def openai_stream_sync(ask: Any) -> Any:
    client = ask.openai_sync.with_options(timeout=CLIENT_SECONDS)
    return await asyncio.to_thread(lambda: list(client.chat.completions.create(**ASK, stream=True)))


async def openai_responses(ask: Any) -> Any:
    return await ask.openai.with_options(timeout=CLIENT_SECONDS).responses.create(model="m", input="Why?")


async def openai_responses_stream(ask: Any) -> Any:
    client = ask.openai.with_options(timeout=CLIENT_SECONDS)
    return [event async for event in await client.responses.create(model="m", input="Why?", stream=True)]


async def anthropic_json(ask: Any) -> Any:
    return await ask.anthropic.with_options(timeout=CLIENT_SECONDS).messages.create(**CLAUDE)


async def anthropic_stream(ask: Any) -> Any:
    client = ask.anthropic.with_options(timeout=CLIENT_SECONDS)
    return [event async for event in await client.messages.create(**CLAUDE, stream=True)]


async def anthropic_sync(ask: Any) -> Any:
    client = ask.anthropic_sync.with_options(timeout=CLIENT_SECONDS)
    return await asyncio.to_thread(client.messages.create, **CLAUDE)


async def anthropic_stream_sync(ask: Any) -> Any:
    client = ask.anthropic_sync.with_options(timeout=CLIENT_SECONDS)
    return await asyncio.to_thread(lambda: list(client.messages.create(**CLAUDE, stream=True)))


async def gemini_json(ask: Any) -> Any:
    answer = await ask.gemini.aio.models.generate_content(model="gemini-2.5-flash", contents="Why?")
    return answer.model_dump(exclude={"sdk_http_response"})


async def gemini_stream(ask: Any) -> Any:
    chunks = await ask.gemini.aio.models.generate_content_stream(model="gemini-2.5-flash", contents="Why?")
    return [chunk.model_dump(exclude={"sdk_http_response"}) async for chunk in chunks]


ASKED = [
    *(openai_json, openai_stream, openai_sync, openai_stream_sync, openai_responses, openai_responses_stream),
    *(anthropic_json, anthropic_stream, anthropic_sync, anthropic_stream_sync, gemini_json, gemini_stream),
]


@pytest.mark.parametrize("asks", ASKED, ids=lambda asks: asks.__name__)
async def test_an_official_client_outlasts_its_own_timeout_and_gets_the_answer(
    teacher: ScriptedTeacher,
    proxy: RunningProxy,
    clients_of: Any,
    asks: Callable[[Any], Awaitable[Any]],
) -> None:
    teacher.hold()
    async with clients_of(proxy) as ask:
        asked = asyncio.create_task(asks(ask))
        await teacher.wait_for_calls(1)
        asyncio.get_running_loop().call_later(HELD_SECONDS, teacher.release)
        first = await asked
        # From the store, without any byte that held it.
        assert await asks(ask) == first
    assert teacher.count() == 1


@pytest.mark.parametrize("asks", [openai_json, openai_stream, anthropic_json, anthropic_stream])
async def test_off_by_default_the_same_client_gives_up(teacher: ScriptedTeacher, clients_of: Any, asks: Any) -> None:
    teacher.hold()
    async with run_proxy(teacher) as proxy, clients_of(proxy) as ask:
        with pytest.raises((openai.APITimeoutError, anthropic.APITimeoutError)):
            await asks(ask)
        teacher.release()


@pytest.mark.parametrize(
    ("body", "before", "kind"),
    [
        (ASK, rb"\n+", "application/json"),
        ({**ASK, "stream": True}, rb"(?:: waiting\n\n)+", "text/event-stream; charset=utf-8"),
    ],
    ids=["json", "stream"],
)
async def test_the_bytes_go_before_the_answer_and_are_not_stored(
    teacher: ScriptedTeacher,
    proxy: RunningProxy,
    http: Any,
    send: Any,
    reading: Any,
    journal_lines: Any,
    parse_cache_status: Any,
    body: dict[str, Any],
    before: bytes,
    kind: str,
) -> None:
    teacher.hold()
    async with http.post(proxy.address + CHAT, json=body, headers={"Authorization": "Bearer x"}) as response:
        assert (response.status, response.headers["content-type"]) == (200, kind)
        status = parse_cache_status(response.headers["cache-status"])
        assert (status["fwd"], status["detail"]) == ("miss", "held")
        read = reading(response)
        await read.until(b"\n")
        teacher.release()
        whole = await read.rest()
    match = re.match(before, whole)
    assert match is not None
    again = await send(proxy.address + CHAT, body)
    assert "hit" in again.cache
    assert whole[match.end() :] == again.body
    (line,) = [line for line in journal_lines(proxy.data_dir) if line["kind"] == "answer"]
    assert "waiting" not in str(line)


async def test_who_joins_late_gets_the_answer_and_no_bytes_of_anothers_wait(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, send: Any, reading: Any
) -> None:
    body = {**ASK, "stream": True}
    gate = asyncio.Event()
    teacher.script(HoldAfter(events=2, gate=gate))
    teacher.hold()
    async with http.post(proxy.address + CHAT, json=body, headers={"Authorization": "Bearer x"}) as response:
        read = reading(response)
        await read.until(b": waiting")
        teacher.release()
        await read.until(b"data:")
        joined = asyncio.create_task(send(proxy.address + CHAT, body))
        gate.set()
        whole = await read.rest()
    other = await joined
    assert b": waiting" not in other.body
    assert whole.endswith(other.body)
    assert teacher.count() == 1


# -- errors that come late --------------------------------------------------------------------------------------

BAD = Respond(400, {}, b'{"error": {"message": "no such\\nmodel", "type": "invalid_request_error", "code": "nope"}}')
CLAUDE_BAD = Respond(400, {}, b'{"type":"error","error":{"type":"invalid_request_error","message":"no such model"}}')


async def test_a_late_error_of_a_stream_is_the_providers_event(
    teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Any
) -> None:
    async with clients_of(proxy) as ask:
        teacher.hold()
        teacher.script(BAD, CLAUDE_BAD)
        # Each returns at the head, which is there before the teacher has said a word.
        chunks = await ask.openai.chat.completions.create(**ASK, stream=True)
        events = await ask.anthropic.messages.create(**CLAUDE, stream=True)
        teacher.release()
        with pytest.raises(openai.APIError, match="no such\nmodel") as caught:
            _ = [chunk async for chunk in chunks]
        assert caught.value.code == "nope"
        with pytest.raises(anthropic.APIStatusError, match="no such model"):
            _ = [event async for event in events]
    assert teacher.count() == 2


async def test_a_late_error_of_json_cuts_the_connection_and_the_clients_retry_sees_it_plainly(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, reading: Any, clients_of: Any
) -> None:
    teacher.hold()
    teacher.script(BAD, BAD)
    async with http.post(proxy.address + CHAT, json=ASK, headers={"Authorization": "Bearer x"}) as response:
        assert response.status == 200
        await reading(response).until(b"\n")
        teacher.release()
        with pytest.raises(Exception, match=r"(?i)payload|closed|transfer"):
            await response.read()
    async with clients_of(proxy) as ask:
        with pytest.raises(openai.BadRequestError):
            await ask.openai.chat.completions.create(**ASK)


async def test_the_proxys_own_late_error_is_an_event_too(
    teacher: ScriptedTeacher, http: Any, reading: Any, tmp_path: Path
) -> None:
    teacher.hold()
    async with run_proxy(teacher, keep_alive_seconds=0.05, drain_seconds=0) as proxy:
        async with http.post(
            proxy.address + CHAT, json={**ASK, "stream": True}, headers={"Authorization": "Bearer x"}
        ) as response:
            read = reading(response)
            await read.until(b": waiting")
            stopping = asyncio.create_task(proxy.app.stop())
            whole = await read.rest()
        await stopping
        teacher.release()
    event = whole.removeprefix(b": waiting\n\n" * whole.count(b": waiting\n\n"))
    assert event.startswith(b'data: {"error":{"message":"kdproxy: The call was stopped')
    assert event.endswith(b"\n\n")


async def test_a_parked_client_is_held_beyond_its_patience(
    teacher: ScriptedTeacher, clients_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_module, "FIRST_PROBE_SECONDS", 1.0)
    teacher.script(InsufficientQuota())
    async with run_proxy(teacher, keep_alive_seconds=0.05, spent_policy="park") as proxy, clients_of(proxy) as ask:
        answer = await openai_json(ask)
        assert answer.choices[0].message.content
    assert teacher.count() == 2


async def test_a_held_client_that_leaves_takes_its_unsent_request_along(
    teacher: ScriptedTeacher, http: Any, reading: Any
) -> None:
    teacher.hold()
    async with run_proxy(teacher, keep_alive_seconds=0.05, max_in_flight=1) as proxy:
        headers = {"Authorization": "Bearer x"}
        async with http.post(proxy.address + CHAT, json=ASK, headers=headers) as first:
            await reading(first).until(b"\n")
            second = await http.post(proxy.address + CHAT, json={**ASK, "seed": 1}, headers=headers)
            await reading(second).until(b"\n")
            assert proxy.app.lanes()[0]["queued"] == 1
            second.close()
            async with asyncio.timeout(5):
                while proxy.app.lanes()[0]["queued"]:
                    await asyncio.sleep(0)
            teacher.release()
            await first.read()
    assert teacher.count() == 1
