"""Equal sampled questions without a run get one answer; the log, `stats`, the page and the end of `serve` say so."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher, ServerError

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}]}
HINT = "kdproxy run -- CMD"


class Client:
    """A program with a connection of its own."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address

    async def ask(self, path: str = CHAT, headers: dict[str, str] | None = None, **settings: Any) -> int:
        async with self._session.post(self._address + path, json={**ASK, **settings}, headers=headers) as answer:
            await answer.read()
            return answer.status


@asynccontextmanager
async def client(proxy: Any, key: str = "one", agent: str = "python") -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {key}", "User-Agent": agent}
    async with aiohttp.ClientSession(headers=headers) as session:
        yield Client(session, proxy.address)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_script_that_asks_again_is_counted(proxy: RunningProxy, stream: bool) -> None:
    async with client(proxy) as script:
        for _ in range(4):
            await script.ask(stream=stream)
    assert proxy.app.repeats.as_dict() == {"requests": 3, "questions": 1}


async def test_connections_whose_lives_overlap_are_one_client(proxy: RunningProxy) -> None:
    async with client(proxy) as first:
        await first.ask()
        async with client(proxy) as second:
            await second.ask()
    assert proxy.app.repeats.requests == 1


async def test_a_script_that_is_started_again_is_not_counted(proxy: RunningProxy) -> None:
    for _ in range(3):
        async with client(proxy) as script:
            await script.ask()
        await until(lambda: not proxy.app.repeats._open)
    assert proxy.app.repeats.requests == 0


@pytest.mark.parametrize(("key", "agent"), [("two", "python"), ("one", "curl")])
async def test_two_programs_at_once_are_not_counted(proxy: RunningProxy, key: str, agent: str) -> None:
    async with client(proxy) as first, client(proxy, key, agent) as second:
        await first.ask()
        await second.ask()
    assert proxy.app.repeats.requests == 0


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 0},
        {"seed": 1},
        {"path": "/runs/r" + CHAT},
        {"headers": {"Kdproxy-Sample": "collapse"}},
        {"headers": {"Cache-Control": "no-cache"}},
        {"headers": {"Cache-Control": "no-store"}},
    ],
    ids=str,
)
async def test_who_wants_one_answer_or_gets_several_is_not_counted(proxy: RunningProxy, asked: dict[str, Any]) -> None:
    async with client(proxy) as script:
        for _ in range(3):
            assert await script.ask(**asked) == 200
    assert proxy.app.repeats.requests == 0


async def test_a_retry_after_an_error_is_not_counted(teacher: ScriptedTeacher, proxy: RunningProxy) -> None:
    teacher.script(ServerError(400), ServerError(400))
    async with client(proxy) as script:
        assert [await script.ask() for _ in range(3)] == [400, 400, 200]
    assert proxy.app.repeats.requests == 0


async def test_one_connection_with_two_credentials_is_two_clients(proxy: RunningProxy) -> None:
    async with client(proxy) as script:
        await script.ask()
        await script.ask(headers={"Authorization": "Bearer two"})
        assert proxy.app.repeats.requests == 0
        assert len(proxy.app.repeats._open) == 1
    await until(lambda: not proxy.app.repeats._open)


async def test_the_log_stats_the_page_and_the_end_say_what_to_do(teacher: ScriptedTeacher, tmp_path: Path) -> None:
    async with run_proxy_process(teacher, tmp_path / "data") as running:
        async with client(running) as script:
            await script.ask()
            assert HINT not in await _page(running.address)
            await script.ask()
            await script.ask()
        assert HINT in await _page(running.address)
        shown = await _stats(tmp_path / "data")
        assert "2 requests asked a sampled question again" in shown
        assert HINT in shown
        running.send(signal.SIGTERM)
        await running.wait()
        _, said = await running.output()
    log, _, end = said.partition("shutting down")
    assert log.count(HINT) == 1
    assert end.count(HINT) == 1


async def _page(address: str) -> str:
    async with aiohttp.ClientSession() as session, session.get(address, headers={"Accept": "text/html"}) as page:
        return await page.text()


async def _stats(data_dir: Path) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kdproxy", "stats", "--quick", "--data-dir", str(data_dir), "--config", os.devnull),
        stdout=asyncio.subprocess.PIPE,
    )
    return (await process.communicate())[0].decode()


async def until(condition: Any) -> None:
    """Wait for what no event tells."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)
