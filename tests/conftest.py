"""What tests of both packages share: a teacher, a proxy before it, and a plain HTTP client."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import hypothesis
import pytest
import pytest_asyncio
from multidict import CIMultiDictProxy
from yarl import URL

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

CLIENT_KEY = "key-of-the-client-0123456789"
QUESTION: dict[str, Any] = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Why is the sky blue?"}]}


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background job ignores Ctrl-C, and so would every process that a test starts and interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


# An example's time is the machine's matter: a busy one is no failure.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB of its own; only root can mount one."""
    point = tmp_path / "disk"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=64,mode=0700", "tmpfs", str(point)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a file system here")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)


class Ballast:
    """Fills a disk and frees it again."""

    def __init__(self, disk: Path) -> None:
        self._path = disk / "ballast"

    def fill(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096) == 4096:
                    pass
            except OSError:
                return

    def free(self) -> None:
        self._path.unlink()


@pytest.fixture
def ballast(small_disk: Path) -> Ballast:
    return Ballast(small_disk)
