"""An upstream that cannot be had: the log and the client say why, and neither says what the request carried."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.testing.proxy import ProxyProcess, run_proxy, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher
from tests.wire import Certificate
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio

SECRET = "canary-of-a-credential"


async def test_a_teacher_behind_tls_is_asked_as_any_other(tmp_path: Path, send: Any) -> None:
    certificate = Certificate(tmp_path)
    async with ScriptedTeacher(tls=certificate.context) as teacher:
        assert teacher.base_url.startswith("https://")
        environment = {"SSL_CERT_FILE": str(certificate.path)}
        async with run_proxy_process(teacher, tmp_path / "data", environment=environment) as proxy:
            for body in (ASK, {**ASK, "stream": True}):
                got = await send(proxy.address + CHAT, body)
                assert got.status == 200
                assert (await send(proxy.address + CHAT, body)).body == got.body
            assert (await send(f"{proxy.address}/v1/models")).status == 200
        assert teacher.count() == 3


@pytest.mark.parametrize(("address", "why"), [("127.0.0.1", "self-signed certificate"), ("127.0.0.9", "not valid for")])
async def test_a_certificate_that_is_not_trusted_is_reported_at_once(
    tmp_path: Path, send: Any, address: str, why: str
) -> None:
    certificate = Certificate(tmp_path, address)
    environment = {"SSL_CERT_FILE": str(certificate.path)} if address != "127.0.0.1" else {}
    async with (
        ScriptedTeacher(tls=certificate.context) as teacher,
        run_proxy_process(teacher, tmp_path / "data", environment=environment) as proxy,
    ):
        for path in (CHAT, "/v1/files"):
            async with asyncio.timeout(5):
                got = await send(proxy.address + path, ASK)
            assert (got.status, got.headers["x-should-retry"]) == (502, "false")
            error = orjson.loads(got.body)["error"]
            assert error["code"] == "upstream_untrusted"
            assert why in error["message"]
            assert "SSL_CERT_FILE" in error["message"]
        assert teacher.count() == 0
        await proxy.kill()
        _, err = await proxy.output()
    assert why in err
    assert "Traceback" not in err


@asynccontextmanager
async def server(reply: bytes | None) -> AsyncIterator[str]:
    """A server that says these bytes to a request and closes; None: nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        if reply is not None:
            writer.write(reply)
        writer.close()

    started = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with started:
        yield f"127.0.0.1:{started.sockets[0].getsockname()[1]}"


async def said(upstream: str, data_dir: Path, send: Any) -> tuple[list[Any], str]:
    """Ask a question and let a call pass through; return the replies and the log."""
    environment = {"KDPROXY_RETRY_ATTEMPTS": "1", "KDPROXY_LOG_LEVEL": "debug"}
    async with run_proxy_process(upstream, data_dir, environment=environment) as proxy:
        replies = [await ask(proxy, path, send) for path in (CHAT, "/v1/files")]
        await proxy.kill()
        out, err = await proxy.output()
    assert SECRET not in out + err
    assert all(SECRET.encode() not in reply.body for reply in replies)
    return replies, err


async def ask(proxy: ProxyProcess, path: str, send: Any) -> Any:
    return await send(f"{proxy.address}{path}?key={SECRET}", ASK, headers={"Authorization": f"Bearer {SECRET}"})


async def test_a_closed_port_is_reported_as_one(tmp_path: Path, send: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    replies, err = await said(f"http://127.0.0.1:{port}/v1", tmp_path, send)
    # Once for the question (a lane's failure), once for the call that passed through (its own line).
    assert err.count("Connection refused") >= 2, err
    assert f'upstream=127.0.0.1:{port} reason="The upstream could not be reached (Connection refused)."' in err
    assert all(b"Connection refused" in reply.body for reply in replies)


async def test_a_name_that_nobody_has_is_reported_as_one(tmp_path: Path, send: Any) -> None:
    replies, err = await said("http://no-such-host.invalid/v1", tmp_path, send)
    assert "its name no-such-host.invalid is not known to DNS" in err
    assert all(b"not known to DNS" in reply.body for reply in replies)


async def test_a_server_without_tls_is_reported_as_one(tmp_path: Path, send: Any) -> None:
    async with server(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n") as address:
        replies, err = await said(f"https://{address}/v1", tmp_path, send)
    assert "TLS: " in err
    assert all(b"TLS: " in reply.body for reply in replies)


async def test_a_server_that_hangs_up_is_reported_as_one(tmp_path: Path, send: Any) -> None:
    async with server(None) as address:
        replies, err = await said(f"http://{address}/v1", tmp_path, send)
    assert "it closed the connection" in err
    assert all(reply.status in (502, 503) for reply in replies)


async def test_a_client_that_waits_no_longer_learns_the_cause(send: Any) -> None:
    """An unsent attempt costs nothing and is made again for as long as the client waits; then the client hears why."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with run_proxy(f"http://127.0.0.1:{port}/v1", patience_seconds=1) as proxy:
        got = await send(proxy.address + CHAT, ASK)
    assert (got.status, got.headers["x-should-retry"]) == (503, "true")
    assert b"Connection refused" in got.body
