"""What tests of both packages share: a teacher, a proxy before it, and a plain HTTP client."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from multidict import CIMultiDictProxy
from yarl import URL

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

CLIENT_KEY = "key-of-the-client-0123456789"
QUESTION: dict[str, Any] = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}


@dataclass(frozen=True, slots=True)
class Got:
    """An answer as it came, nothing decoded."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def cache(self) -> str:
        return self.headers["Cache-Status"]


Send = Callable[..., Awaitable[Got]]


@pytest_asyncio.fixture
async def teacher() -> AsyncIterator[ScriptedTeacher]:
    async with ScriptedTeacher() as teacher:
        yield teacher


@pytest_asyncio.fixture
async def proxy(teacher: ScriptedTeacher, tmp_path: Path) -> AsyncIterator[RunningProxy]:
    async with run_proxy(teacher, data_dir=tmp_path / "data") as proxy:
        yield proxy


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    """A client that adds and decodes nothing on its own, and has a connection for everybody."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=20),
    ) as session:
        yield session


@pytest.fixture
def client_key() -> str:
    """The API key that clients here carry."""
    return CLIENT_KEY


@pytest.fixture
def question() -> dict[str, Any]:
    """A chat question; temperature is not given, so it is a sampled one."""
    return {**QUESTION, "messages": list(QUESTION["messages"])}


@pytest.fixture
def send(http: aiohttp.ClientSession) -> Send:
    """Send one request and read its answer: `await send(url, {...json}, method=, headers=, data=)`."""

    async def send(
        url: str,
        json: Any = None,
        *,
        method: str | None = None,
        headers: dict[str, str] | None = None,
        data: Any = None,
    ) -> Got:
        if json is not None and data is None:
            data = aiohttp.JsonPayload(json)
        async with http.request(
            method or ("GET" if data is None else "POST"),
            URL(url, encoded=True),
            data=data,
            headers={"Authorization": f"Bearer {CLIENT_KEY}", "Content-Type": "application/json", **(headers or {})},
            allow_redirects=False,
        ) as response:
            return Got(response.status, response.headers, await response.content.read())

    return send


@pytest.fixture
def exchange() -> Callable[[str, bytes], Awaitable[bytes]]:
    """Write raw bytes to a server and read until it closes, for requests that no client library would send."""

    async def exchange(address: str, request: bytes) -> bytes:
        url = URL(address)
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection(url.host, url.port)
            try:
                writer.write(request)
                return await reader.read()
            finally:
                writer.close()

    return exchange
