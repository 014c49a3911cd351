"""The command as a process of its own, and calls of the proxy's own API."""

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from kdproxy.storage.lock import read_owner
from kdproxy.testing.proxy import RunningProxy
from tests.ran import Ran

MODEL = "gpt-4.1"


@pytest.fixture
def start() -> Callable[..., Awaitable[Process]]:
    """Start `kdproxy` with no settings but those given."""

    async def start(*arguments: str | Path) -> Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kdproxy", *map(str, arguments), "--config", os.devnull),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/")},
        )

    return start


@pytest.fixture
def kdproxy(start: Callable[..., Awaitable[Process]]) -> Callable[..., Awaitable[Ran]]:
    """Run `kdproxy` to its end."""

    async def kdproxy(*arguments: str | Path) -> Ran:
        process = await start(*arguments)
        out, err = await process.communicate()
        assert process.returncode is not None
        return Ran(process.returncode, out, err.decode())

    return kdproxy


@pytest.fixture
def chat() -> Callable[..., dict[str, Any]]:
    """Make a chat question of one text."""

    def chat(text: str, **members: Any) -> dict[str, Any]:
        return {"model": MODEL, "messages": [{"role": "user", "content": text}], "temperature": 0, **members}

    return chat


@pytest.fixture
def rows_file() -> Callable[..., Path]:
    """Write rows as JSON lines."""

    def rows_file(path: Path, *rows: Any) -> Path:
        path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
        return path

    return rows_file


@pytest.fixture
def call() -> Callable[..., Awaitable[Any]]:
    """Start a job over a proxy's API; return the status and the events."""

    async def call(
        proxy: RunningProxy, job: str, arguments: Any = None, *, method: str = "POST", headers: Any = None
    ) -> tuple[int, list[dict[str, Any]]]:
        owner = read_owner(proxy.data_dir)
        assert owner is not None
        sent = {"Authorization": f"Bearer {owner.token}", **(headers or {})}
        async with aiohttp.ClientSession() as session:
            url = f"{proxy.address}/_kdproxy/api/{job}"
            async with session.request(method, url, json=arguments or {}, headers=sent) as response:
                return response.status, [orjson.loads(line) for line in (await response.read()).splitlines()]

    return call


@pytest.fixture
def warm_here(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Warm over the proxy's API, without the command; return the events."""

    async def warm_here(proxy: RunningProxy, *files: Path) -> list[dict[str, Any]]:
        status, events = await call(proxy, "warm", {"files": [str(file) for file in files]})
        assert status == 200
        found: list[dict[str, Any]] = events
        return found

    return warm_here
