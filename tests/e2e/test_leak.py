"""No credential in any file or log byte, whatever a client does with it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from kdproxy.testing.proxy import run_proxy_process
from kdproxy.testing.teacher import (
    CutStream,
    ErrorIn200,
    InsufficientQuota,
    RateLimited,
    Reset,
    Respond,
    ScriptedTeacher,
    ServerError,
)
from tests.wire.asks import ASK

pytestmark = pytest.mark.asyncio

SECRET = "canary-of-a-credential"
CARRIERS: list[tuple[dict[str, str], str]] = [
    ({"Authorization": f"Bearer {SECRET}"}, ""),
    ({"Authorization": SECRET}, ""),
    ({"x-api-key": SECRET, "anthropic-version": "2023-06-01"}, ""),
    ({"api-key": SECRET}, ""),
    ({"x-goog-api-key": SECRET}, ""),
    ({"Proxy-Authorization": SECRET, "Authorization": f"Bearer {SECRET}"}, ""),
    ({"Cookie": f"session={SECRET}", "Authorization": "Bearer x"}, ""),
    ({}, f"?key={SECRET}"),
    ({}, f"?alt=sse&%6Bey={SECRET}"),
    ({}, f"?api-key={SECRET}&api_key={SECRET}"),
    ({"Authorization": "Bearer x"}, f"?access_token={SECRET}&limit=3"),
    ({"Authorization": "Bearer x"}, f"?sig={SECRET}&token={SECRET}"),
    ({"Authorization": "Bearer x"}, f"?name-that-nobody-knows={SECRET}"),
    ({"Authorization": "Bearer x"}, f"?{SECRET}"),
]
PATHS = (
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/files",
    "/v1/models",
    "/v1beta/models/g:generateContent",
    "/v1beta/models/g:streamGenerateContent",
    "/upstreams/none/v1/files",
    "/a/../b",
    "/_kdproxy/none",
)
STEPS = (
    *(ErrorIn200(), RateLimited(retry_after_ms=1), InsufficientQuota(), Reset(), ServerError(500), CutStream(1)),
    Respond(401, {"X-Echo": SECRET}, json.dumps({"error": {"message": f"Incorrect API key: {SECRET}"}}).encode()),
    Respond(200, {"Set-Cookie": SECRET, "X-Echo": SECRET}, b'{"choices":[{"index":0,"finish_reason":"stop"}]}'),
)


async def test_no_credential_is_written_anywhere(
    teacher: ScriptedTeacher, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async def ask(url: str, headers: dict[str, str], body: Any) -> None:
        try:
            async with http.request(
                "GET" if "models" in url and ":" not in url[-30:] else "POST",
                URL(url, encoded=True),
                json=body,
                headers=headers,
                allow_redirects=False,
            ) as response:
                await response.read()
        except aiohttp.ClientError:
            pass  # cut on purpose

    environment = {"KDPROXY_LOG_LEVEL": "debug", "KDPROXY_RETRY_ATTEMPTS": "1", "PYTHONASYNCIODEBUG": "1"}
    async with run_proxy_process(teacher.root_url, tmp_path, environment=environment) as proxy:
        for number, (headers, query) in enumerate(CARRIERS):
            for path in PATHS:
                await ask(proxy.address + path + query, headers, {**ASK, "max_tokens": 9, "seed": number})
            for position, step in enumerate(STEPS):
                teacher.script(step)
                body = {**ASK, "seed": [number, position], "stream": isinstance(step, CutStream)}
                await ask(f"{proxy.address}/v1/chat/completions{query}", headers, body)
                teacher.reset()
        teacher.hold()
        left = asyncio.create_task(ask(f"{proxy.address}/v1/files?key={SECRET}", {}, ASK))
        await teacher.wait_for_calls(teacher.count() + 1)
        left.cancel()
        await asyncio.gather(left, return_exceptions=True)
        teacher.release()
        proxy.process.terminate()
        assert await proxy.wait() == 0
        out, err = await proxy.output()
    assert SECRET not in out + err
    assert "Traceback" not in err
    # The files hold something: the questions were stored.
    assert b'"content":"Why?"' in (tmp_path / "api_recovery.jsonl").read_bytes().replace(b": ", b":").replace(
        b'\\"', b'"'
    )
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert SECRET.encode() not in file.read_bytes(), file


async def test_an_unreachable_upstream_is_not_logged_with_its_query(tmp_path: Path, send: Any) -> None:
    environment = {"KDPROXY_LOG_LEVEL": "debug", "KDPROXY_RETRY_ATTEMPTS": "1"}
    async with run_proxy_process("http://127.0.0.1:9/v1", tmp_path, environment=environment) as proxy:
        for path in ("/v1/files", "/v1/chat/completions", "/v1beta/models/g:generateContent", "/v1/models"):
            got = await send(f"{proxy.address}{path}?key={SECRET}", ASK, headers={"Authorization": f"Bearer {SECRET}"})
            assert got.status in (502, 503)
            assert SECRET.encode() not in got.body
        await proxy.kill()
        out, err = await proxy.output()
    assert SECRET not in out + err
