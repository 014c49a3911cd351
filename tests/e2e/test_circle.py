"""Proxies that lead to one another: a circle is told at once, a chain is none."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def circle() -> AsyncIterator[RunningProxy]:
    """A proxy whose upstream is a proxy whose upstream is the first."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    async with run_proxy(f"http://127.0.0.1:{port}") as other, run_proxy(other.address, port=port) as proxy:
        yield proxy


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        (CHAT, ASK, {}),
        (CHAT, {**ASK, "stream": True}, {}),
        (CHAT, ASK, {"Kdproxy-Mode": "bypass"}),
        ("/v1/messages", {**ASK, "max_tokens": 1}, {"anthropic-version": "2023-06-01"}),
        ("/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "Why?"}]}]}, {}),
        ("/v1/files", ASK, {}),
        ("/v1/models", None, {}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
async def test_a_circle_is_reported_at_once(
    circle: RunningProxy, send: Any, path: str, body: Any, headers: dict[str, str]
) -> None:
    async with asyncio.timeout(5):
        got = await send(circle.address + path, body, headers=headers)
    assert got.status == 508
    assert got.headers["x-should-retry"] == "false"
    error = orjson.loads(got.body)["error"]
    assert "Proxy loop" in error["message"]
    assert "--upstream" in error["message"]
    if path == "/v1/messages":
        assert orjson.loads(got.body)["type"] == "error"
        assert error["type"] == "api_error"
    elif "generateContent" in path:
        assert error["code"] == 508
    else:
        assert error["code"] == "loop_detected"


async def test_a_chain_is_no_circle(teacher: ScriptedTeacher, send: Any) -> None:
    async with run_proxy(teacher) as second, run_proxy(second.address) as first:
        got = await send(first.address + CHAT, ASK, headers={"CDN-Loop": "some-cdn"})
        assert got.status == 200
        assert (await send(first.address + CHAT, ASK)).body == got.body
    assert teacher.count() == 1
    names = ", ".join(teacher.calls[0].headers.getall("CDN-Loop")).split(", ")
    assert names[0] == "some-cdn"
    assert len({name for name in names if name.startswith("kdproxy-")}) == 2
