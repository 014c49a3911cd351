"""The server around the answers: records, gates, limits, credentials, and the process."""

import asyncio
import io
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from kdproxy.testing.teacher import ScriptedTeacher, ServerError, prompt_digest

pytestmark = pytest.mark.asyncio

ROOT = Path(__file__).parents[3]


def question(text: str = "Why?", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


async def content(teacher: ScriptedTeacher, http: aiohttp.ClientSession, body: dict[str, Any]) -> str:
    async with http.post(f"{teacher.base_url}/chat/completions", json=body) as answer:
        return str((await answer.json())["choices"][0]["message"]["content"])


async def test_calls_are_recorded_as_they_came(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    raw = b'{"model": "m", "messages": [{"role": "user", "content": "\xc3\xa9"}]}'
    url = f"{teacher.base_url}/chat/completions?a=1&b=%2F&b=2"
    async with http.post(URL(url, encoded=True), data=raw, headers={"X-Mine": "yes"}) as answer:
        assert answer.status == 200
    [call] = teacher.calls
    assert (call.method, call.path) == ("POST", "/v1/chat/completions")
    assert list(call.query.items()) == [("a", "1"), ("b", "/"), ("b", "2")]
    assert call.target == "/v1/chat/completions?a=1&b=%2F&b=2"
    assert call.headers["x-mine"] == "yes"
    assert call.body == raw
    assert call.json["messages"][0]["content"] == "é"


async def test_large_bodies_and_bad_json_are_recorded(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    for raw in (b" " * 3_000_000, b'{"model": NaN}', b"[]"):
        async with http.post(f"{teacher.base_url}/chat/completions", data=io.BytesIO(raw)) as answer:
            assert answer.status == 400
            assert "JSON" in (await answer.json())["error"]["message"]
    assert [len(call.body) for call in teacher.calls] == [3_000_000, 14, 2]


async def test_deterministic_answers_depend_on_the_request_alone() -> None:
    async with (
        ScriptedTeacher(deterministic=True) as one,
        ScriptedTeacher(deterministic=True) as other,
        aiohttp.ClientSession(headers={"Authorization": "Bearer test"}) as http,
    ):
        first = await content(one, http, question())
        assert await content(one, http, question()) == first
        assert await content(other, http, question()) == first
        assert await content(one, http, question(seed=1)) != first
        assert await content(one, http, question("How?")) != first
        assert prompt_digest("Why?") in first


async def test_held_answers_wait_for_release(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    teacher.hold()
    asked = [asyncio.create_task(content(teacher, http, question())) for _ in range(3)]
    await teacher.wait_for_calls(3)
    assert not any(task.done() for task in asked)
    teacher.release()
    assert len(set(await asyncio.gather(*asked))) == 3
    await teacher.wait_for_ended(3)


async def test_waiting_for_calls_that_do_not_come_fails(teacher: ScriptedTeacher) -> None:
    with pytest.raises(TimeoutError):
        await teacher.wait_for_calls(1, timeout_seconds=0.01)


async def test_closing_does_not_wait_for_held_answers(http: aiohttp.ClientSession) -> None:
    async with ScriptedTeacher() as teacher:
        teacher.hold()
        asked = asyncio.create_task(content(teacher, http, question()))
        await teacher.wait_for_calls(1)
    with pytest.raises(aiohttp.ClientError):
        await asked


@pytest.mark.parametrize(
    ("path", "has_its_shape"),
    [
        ("/v1/chat/completions", lambda body: body["error"]["type"] == "invalid_request_error"),
        ("/v1/messages", lambda body: body["error"]["type"] == "authentication_error"),
        ("/v1beta/models/m:generateContent", lambda body: body["error"]["status"] == "UNAUTHENTICATED"),
    ],
)
async def test_without_credentials_each_provider_says_401(
    teacher: ScriptedTeacher, path: str, has_its_shape: Any
) -> None:
    teacher.script(ServerError())
    async with aiohttp.ClientSession() as http, http.post(teacher.root_url + path, json={}) as answer:
        assert answer.status == 401
        assert has_its_shape(await answer.json())
    assert teacher.unplayed == 1


@pytest.mark.parametrize("header", ["Authorization", "x-api-key", "api-key", "x-goog-api-key"])
async def test_any_providers_credential_will_do(teacher: ScriptedTeacher, header: str) -> None:
    async with aiohttp.ClientSession(headers={header: "test"}) as http:
        assert await content(teacher, http, question())


async def test_credentials_can_be_left_out_on_request() -> None:
    async with ScriptedTeacher(require_credentials=False) as teacher, aiohttp.ClientSession() as http:
        assert await content(teacher, http, question())


async def test_unknown_paths_get_openais_404(teacher: ScriptedTeacher, http: aiohttp.ClientSession) -> None:
    async with http.post(f"{teacher.base_url}/threads", json={}) as answer:
        assert answer.status == 404
        assert (await answer.json())["error"]["message"] == "Invalid URL (POST /v1/threads)"


async def test_requests_per_minute_are_counted_in_windows(http: aiohttp.ClientSession) -> None:
    now = 100.0
    async with ScriptedTeacher(requests_per_minute=2, clock=lambda: now) as teacher:
        url = f"{teacher.base_url}/chat/completions"

        async def ask() -> tuple[int, Any]:
            async with http.post(url, json=question()) as answer:
                return answer.status, answer.headers

        assert [(await ask())[0] for _ in range(2)] == [200, 200]
        now += 18.5
        status, headers = await ask()
        assert status == 429
        assert (headers["retry-after"], headers["retry-after-ms"]) == ("42", "41500")
        assert headers["x-ratelimit-limit-requests"] == "2"
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert headers["x-ratelimit-reset-requests"] == "41.5s"
        now += 41.5
        status, headers = await ask()
        assert (status, headers["x-ratelimit-remaining-requests"]) == (200, "1")
        assert headers["x-ratelimit-reset-requests"] == "1m0s"


async def test_constant_answers_are_of_the_promised_size(http: aiohttp.ClientSession) -> None:
    async with ScriptedTeacher(constant=True) as teacher:
        url = f"{teacher.base_url}/chat/completions"
        bodies = []
        for body in (question(), question("How?"), question(stream=True)):
            async with http.post(url, json=body) as answer:
                bodies.append(await answer.read())
        assert bodies[0] == bodies[1]
        assert 1_400 <= len(bodies[0]) <= 1_600
        assert bodies[2].endswith(b"data: [DONE]\n\n")
        teacher.script(ServerError())
        async with http.post(url, json=question()) as answer:
            assert answer.status == 500
        assert teacher.count() == 4


async def test_as_a_process_it_counts_resets_and_stops(http: aiohttp.ClientSession) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "kdproxy.testing.teacher", "--port", "0", "--latency-ms", "1", "--rpm", "100"),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        base_url = line.split()[-1]
        root_url = base_url.removesuffix("/v1")
        async with http.post(f"{base_url}/chat/completions", json=question()) as answer:
            assert answer.status == 200
            assert answer.headers["x-ratelimit-limit-requests"] == "100"
        async with http.get(f"{root_url}/_teacher/calls") as answer:
            assert await answer.json() == {"total": 1, "by_path": {"/v1/chat/completions": 1}}
        async with http.post(f"{root_url}/_teacher/reset") as answer:
            assert answer.status == 200
        async with http.get(f"{root_url}/_teacher/calls") as answer:
            assert json.loads(await answer.read())["total"] == 0
    finally:
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), 10)
    assert code == 0
