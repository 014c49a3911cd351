"""The official clients, and readers of what a proxy leaves behind."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic
import openai
import orjson
import pytest
import pytest_asyncio
from anthropic import Anthropic
from google import genai
from openai import OpenAI

from kdproxy.core import retry
from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

# The client subclasses aiohttp's session.
_GEMINI_WARNING = "ignore:Inheritance class AiohttpClientSession:DeprecationWarning"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.filterwarnings(_GEMINI_WARNING))


@pytest.fixture
def fast_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds between paid attempts are tested in virtual time."""
    monkeypatch.setattr(retry, "billed_backoff_seconds", lambda attempt, *, jitter: 0.01)


@dataclass(frozen=True, slots=True)
class Clients:
    """One of each, asking a proxy, with no retries of their own."""

    openai: openai.AsyncOpenAI
    openai_sync: OpenAI
    anthropic: anthropic.AsyncAnthropic
    anthropic_sync: Anthropic
    gemini: genai.Client


@pytest.fixture
def clients_of(client_key: str) -> Callable[[RunningProxy], Any]:
    """Open the official clients on a proxy: `async with clients_of(proxy) as ask`."""

    @asynccontextmanager
    async def clients_of(proxy: RunningProxy) -> AsyncIterator[Clients]:
        manners: dict[str, Any] = {"api_key": client_key, "max_retries": 0, "timeout": 20}
        with (
            openai.OpenAI(base_url=proxy.base_url, **manners) as openai_sync,
            anthropic.Anthropic(base_url=proxy.address, **manners) as anthropic_sync,
        ):
            async with (
                openai.AsyncOpenAI(base_url=proxy.base_url, **manners) as openai_async,
                anthropic.AsyncAnthropic(base_url=proxy.address, **manners) as anthropic_async,
            ):
                gemini = genai.Client(api_key=client_key, http_options={"base_url": proxy.address})
                try:
                    yield Clients(openai_async, openai_sync, anthropic_async, anthropic_sync, gemini)
                finally:
                    await gemini.aio.aclose()
                    gemini.close()

    return clients_of


@pytest.fixture
def assert_bought_once(clients_of: Any) -> Callable[..., Awaitable[None]]:
    """Make each call, then again, then again after a restart: each is sent once and always answered alike."""

    async def assert_bought_once(teacher: ScriptedTeacher, url: Any, data_dir: Path, calls: Sequence[Any]) -> None:
        async with run_proxy(url, data_dir=data_dir) as proxy, clients_of(proxy) as ask:
            first = {call.__name__: await call(ask) for call in calls}
            bought = teacher.count()
            for call in calls:
                assert await call(ask) == first[call.__name__], call.__name__
                assert teacher.count() == bought, call.__name__
        async with run_proxy(url, data_dir=data_dir) as proxy, clients_of(proxy) as ask:
            for call in calls:
                assert await call(ask) == first[call.__name__], f"{call.__name__} after a restart"
                assert teacher.count() == bought, f"{call.__name__} after a restart"

    return assert_bought_once


@pytest.fixture
def journal_lines() -> Callable[[Path], list[dict[str, Any]]]:
    """Read all lines of a data directory's journal, oldest first, but for the first lines of lives."""

    def journal_lines(data_dir: Path) -> list[dict[str, Any]]:
        sealed = sorted(data_dir.glob("api_recovery.[0-9]*.jsonl"))
        lines = b"".join(path.read_bytes() for path in (*sealed, data_dir / "api_recovery.jsonl"))
        return [members for line in lines.splitlines() if (members := orjson.loads(line))["kind"] != "start"]

    return journal_lines


_TOKEN = r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*"
_STRING = r'"(?:[\x20-\x21\x23-\x5b\x5d-\x7e]|\\["\\])*"'
_PARAMETER = re.compile(rf";[ ]*([a-z*][a-z0-9_.*-]*)(?:=({_STRING}|{_TOKEN}|-?\d+))?")


@pytest.fixture
def parse_cache_status() -> Callable[[str], dict[str, Any]]:
    """Read one Cache-Status member as RFC 9211 over RFC 8941 has it; anything else fails the test."""

    def parse(value: str) -> dict[str, Any]:
        assert value.isascii()
        name = re.match(_TOKEN, value)
        assert name is not None, value
        assert name[0] == "kdproxy"
        found: dict[str, Any] = {}
        position = name.end()
        while position < len(value):
            match = _PARAMETER.match(value, position)
            assert match is not None, f"not a structured field at {position}: {value}"
            raw = match[2]
            if raw is None:
                found[match[1]] = True
            elif raw.startswith('"'):
                found[match[1]] = re.sub(r"\\(.)", r"\1", raw[1:-1])
            else:
                found[match[1]] = int(raw) if raw.lstrip("-").isdigit() else raw
            position = match.end()
        # RFC 9211 section 2: a hit was not forwarded.
        assert not (found.get("hit") and "fwd" in found), value
        assert found.get("fwd") in (None, "bypass", "method", "uri-miss", "vary-miss", "miss", "request", "stale")
        return found

    return parse


class Mirror:
    """A server below every nicety: remembers the raw bytes of each request, answers with raw bytes."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.url = ""
        self.closes = False

    def request(self) -> tuple[str, list[tuple[str, str]], bytes]:
        """Return the last request: its line, its headers in order, its body. The proxy's own probes are GETs."""
        questions = [request for request in self.requests if not request.startswith(b"GET ")]
        head, _, body = (questions or self.requests)[-1].partition(b"\r\n\r\n")
        line, *fields = head.decode("latin-1").split("\r\n")
        return line, [(name, value.strip()) for name, _, value in (field.partition(":") for field in fields)], body

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                fields = {
                    name.strip().lower(): value.strip()
                    for name, _, value in (line.partition(b":") for line in head.split(b"\r\n")[1:])
                }
                body = b""
                if b"content-length" in fields:
                    body = await reader.readexactly(int(fields[b"content-length"]))
                elif fields.get(b"transfer-encoding") == b"chunked":
                    body = await reader.readuntil(b"0\r\n\r\n")
                self.requests.append(head + body)
                writer.write(self.answer)
                await writer.drain()
                if self.closes:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest_asyncio.fixture
async def mirror() -> AsyncIterator[Mirror]:
    mirror = Mirror()
    server = await asyncio.start_server(mirror.serve, "127.0.0.1", 0)
    mirror.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield mirror


@pytest_asyncio.fixture
async def before_mirror(mirror: Mirror) -> AsyncIterator[RunningProxy]:
    async with run_proxy(mirror.url) as proxy:
        yield proxy


class Reader:
    """Reads a stream as a client does that shows each event at once."""

    def __init__(self, response: Any) -> None:
        self.response = response
        self.received = b""

    async def until(self, marker: bytes) -> None:
        """Read until these bytes are there."""
        async with asyncio.timeout(10):
            while marker not in self.received:
                chunk = await self.response.content.readany()
                assert chunk, f"the stream ended before {marker!r}"
                self.received += chunk

    async def rest(self) -> bytes:
        self.received += await self.response.content.read()
        return self.received


@pytest.fixture
def reading() -> Callable[[Any], Reader]:
    """Starts to read an answer as it comes."""
    return Reader
