"""`use_environment_proxy`: HTTP_PROXY and NO_PROXY are obeyed, and nothing else of the environment is."""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import ProxyProcess, run_proxy, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher
from kdproxy.upstream.environment import EnvironmentProxy
from tests.wire import Certificate
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


async def test_what_a_netrc_says_goes_nowhere(
    teacher: ScriptedTeacher, send: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client_key: str
) -> None:
    """Its `default` names every host; there it would stand beside the client's key, or in its place."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password of-another-place\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with run_proxy(teacher, use_environment_proxy=True) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 200
        headers = {"Authorization": "", "x-api-key": client_key, "anthropic-version": "2023-06-01"}
        assert (await send(proxy.address + "/v1/messages", {**ASK, "max_tokens": 9}, headers=headers)).status == 200
    chat, messages = teacher.calls
    assert chat.headers["Authorization"] == f"Bearer {client_key}"
    assert messages.headers.getall("Authorization") == [""]


async def test_the_proxy_of_the_environment_is_asked(
    teacher: ScriptedTeacher, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", teacher.root_url)
    async with run_proxy("http://teacher.invalid/v1", use_environment_proxy=True) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 200
    assert teacher.calls[0].headers["Host"] == "teacher.invalid"


async def test_no_proxy_is_obeyed(teacher: ScriptedTeacher, send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    async with run_proxy(teacher, use_environment_proxy=True) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 200


async def test_unasked_the_environment_changes_nothing(
    teacher: ScriptedTeacher, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    async with run_proxy(teacher) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 200


class Tunnel:
    """A forward proxy that opens ways by CONNECT, and remembers what it was asked."""

    def __init__(self, answer: bytes = b"HTTP/1.1 200 Connection established\r\n\r\n") -> None:
        self.answer = answer
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        writer.write(self.answer)
        if b" 200 " in self.answer:
            host, _, port = head.split(b" ")[1].decode().rpartition(":")
            up_reader, up_writer = await asyncio.open_connection(host.strip("[]"), int(port))
            await asyncio.gather(pipe(reader, up_writer), pipe(up_reader, writer), return_exceptions=True)
            up_writer.close()
        writer.close()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def tunnelled(tunnel: Tunnel, tmp_path: Path) -> AsyncIterator[tuple[ScriptedTeacher, ProxyProcess]]:
    """A proxy that reaches a teacher behind TLS over a tunnel."""
    certificate = Certificate(tmp_path)
    listening = await asyncio.start_server(tunnel.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    environment = {
        "SSL_CERT_FILE": str(certificate.path),
        "HTTPS_PROXY": f"http://user:pass%40word@127.0.0.1:{port}",
        "KDPROXY_USE_ENVIRONMENT_PROXY": "true",
        "KDPROXY_RETRY_SECONDS": "0",
    }
    async with (
        listening,
        ScriptedTeacher(tls=certificate.context) as teacher,
        run_proxy_process(teacher, tmp_path / "data", environment=environment) as proxy,
    ):
        yield teacher, proxy


async def test_tls_goes_through_a_tunnel_and_the_proxy_sees_nothing_of_it(send: Any, tmp_path: Path) -> None:
    tunnel = Tunnel()
    async with tunnelled(tunnel, tmp_path) as (teacher, proxy):
        for number in range(3):
            got = await send(proxy.address + CHAT, {**ASK, "messages": [{"role": "user", "content": str(number)}]})
            assert got.status == 200
        assert teacher.count() == 3
        assert "Proxy-Authorization" not in teacher.calls[0].headers
    for head in tunnel.heads:
        line, *headers, _, _ = head.decode().split("\r\n")
        assert line == f"CONNECT 127.0.0.1:{teacher.root_url.rpartition(':')[2]} HTTP/1.1"
        credential = base64.b64encode(b"user:pass@word").decode()
        assert headers[1:] == [f"Proxy-Authorization: Basic {credential}"]


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", b"it answered 407"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nsorry", b"it answered 502"),
        (b"", b"it closed the connection"),
        (b"SSH-2.0-x\r\n", b"not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", b"more than its reply"),
    ],
    ids=["407", "502", "a close", "another protocol", "a stray answer"],
)
async def test_a_tunnel_that_does_not_open_is_named(send: Any, tmp_path: Path, answer: bytes, why: bytes) -> None:
    tunnel = Tunnel(answer)
    async with tunnelled(tunnel, tmp_path) as (teacher, proxy):
        got = await send(f"{proxy.address}/v1/files")
        assert got.status == 502
        assert b"the environment's proxy refused the tunnel: " in got.body
        assert why in got.body
        assert b"word" not in got.body
        assert teacher.count() == 0


async def test_plain_http_over_a_proxy_carries_its_credential(
    teacher: ScriptedTeacher, send: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", teacher.root_url.replace("://", "://user:word@"))
    async with run_proxy("http://teacher.invalid/v1", use_environment_proxy=True) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 200
        got = await send(f"{proxy.address}/v1/files", data=b"x" * 100_000)
        assert got.status == 400  # the teacher's own word on a body that is no form
    for call in teacher.calls:
        assert call.headers["Proxy-Authorization"] == "Basic " + base64.b64encode(b"user:word").decode()
        assert call.headers["Host"] == "teacher.invalid"


@pytest.mark.parametrize(
    ("no_proxy", "is_direct"),
    [
        ("127.0.0.0/8", True),
        ("10.0.0.0/8, 127.0.0.1/32", True),
        ("10.0.0.0/8 127.0.0.0/24", True),
        ("10.0.0.0/8", False),
        ("::/0", False),
        ("*", True),
        ("127.0.0.1", True),
        ("127.0.0.2", False),
        ("", False),
        ("127.0.0.0/33", False),
    ],
)
async def test_no_proxy_names_networks(
    teacher: ScriptedTeacher, send: Any, monkeypatch: pytest.MonkeyPatch, no_proxy: str, is_direct: bool
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    async with run_proxy(teacher, use_environment_proxy=True) as proxy:
        got = await send(f"{proxy.address}/v1/files")
        assert (got.status == 200) is is_direct
        assert (b"the environment's proxy: Connection refused" in got.body) is not is_direct


async def test_no_proxy_of_ipv6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.invalid:1")
    monkeypatch.setenv("NO_PROXY", "fd00::/8,[fe80::]/10,.internal")
    found = EnvironmentProxy()
    for url, is_direct in (
        ("http://[fd12::1]:8000/v1", True),
        ("http://[fe80::1%25eth0]/v1", False),
        ("http://[2001:db8::1]/v1", False),
        ("http://gpu.internal/v1", True),
        ("http://internal.example/v1", False),
    ):
        assert (found.of(url) is None) is is_direct, url
