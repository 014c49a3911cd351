"""What `kdproxy serve` and its clients say of an upstream that is mistyped, away, or not ready yet."""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy import app
from kdproxy.testing.proxy import ProxyProcess, run_proxy, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher
from tests.wire import Certificate, Close, WireServer, answer, chat, json_answer
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio

CHECKS = {"KDPROXY_CHECK_UPSTREAMS": "true"}
MODELS = json_answer({"object": "list", "data": [{"id": "m", "object": "model"}]})
KEY = "canary-of-a-key"


async def line(process: ProxyProcess, words: str) -> str:
    """Wait for a line on stderr that holds these words, end the process and return all of stderr."""
    async with asyncio.timeout(20):
        while words.encode() not in process.said():
            await asyncio.sleep(0.02)
    await process.kill()
    return (await process.output())[1]


@asynccontextmanager
async def nobody() -> AsyncIterator[int]:
    """A port that refuses."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    yield port


@asynccontextmanager
async def without_tls() -> AsyncIterator[str]:
    """A server of plain HTTP, which finds a TLS handshake to be a bad request."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def start_says(upstream: Any, data: Path, words: str, *flags: str, **environment: str) -> str:
    async with run_proxy_process(upstream, data, *flags, environment={**CHECKS, **environment}) as proxy:
        return await line(proxy, words)


# -- what start says ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("play", "words"),
    [
        (MODELS, "reached, 1 model"),
        (json_answer({"error": {"message": "no key"}}, status="401 Unauthorized"), "reached (401 without a key"),
        (json_answer({"error": {"message": "no"}}, status="403 Forbidden"), "reached (403 without a key"),
        (json_answer({"detail": "Not Found"}, status="404 Not Found"), "reached (404 for the list of models"),
        (json_answer({"error": "loading"}, status="503 Service Unavailable"), "answers 503: it may be starting"),
        (answer(b"<html><title>Welcome</title></html>", kind="text/html"), "answers with a web page"),
        (answer(b"", status="301 Moved Permanently", headers=("Location: https://elsewhere/v1",)), "elsewhere"),
    ],
    ids=["list", "401", "403", "404", "503", "page", "301"],
)
async def test_start_says_what_came(tmp_path: Path, play: bytes, words: str) -> None:
    async with WireServer([play]) as upstream:
        told = await start_says(f"t={upstream.url}", tmp_path, words)
    assert f"upstream t ({upstream.url}): " in told
    assert "Warning: upstream" not in told or "reached" not in words


async def test_start_sends_no_key_and_costs_nothing(tmp_path: Path) -> None:
    async with WireServer([MODELS]) as upstream:
        await start_says(upstream.url, tmp_path, "reached", OPENAI_API_KEY=KEY, KDPROXY_TOKEN="t" * 20)
    (request,) = upstream.requests
    assert request.line == "GET /v1/models HTTP/1.1"
    assert KEY.encode() not in request.raw


async def test_a_key_that_is_configured_for_an_upstream_is_tried(tmp_path: Path) -> None:
    config = tmp_path / "k.toml"
    async with WireServer([json_answer({"error": {"message": "bad key"}}, status="401 Unauthorized")]) as upstream:
        config.write_text(f'[upstreams.t]\nurl = "{upstream.url}"\ncredential_env = "TEACHER"\n')
        told = await start_says(
            [], tmp_path / "d", "refuses the key", "--config", str(config), TEACHER=KEY, KDPROXY_TOKEN="t" * 20
        )
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert "credential_env (401)" in told
    assert KEY not in told


async def test_a_wrong_path_is_reported_with_the_right_one(tmp_path: Path) -> None:
    def play(request: Any) -> list[bytes]:
        is_there = request.path == "/api/v1/models"
        return [MODELS if is_there else json_answer({"detail": "Not Found"}, status="404 Not Found")]

    async with WireServer(play) as upstream:
        host = upstream.url.removesuffix("/v1")
        told = await start_says(f"{host}/openai/v2", tmp_path, "wrong path")
    assert f"Take {host}/api/v1" in told


async def test_a_refused_connection_is_held_and_a_name_that_nobody_has_is_not(tmp_path: Path) -> None:
    async with nobody() as port:
        told = await start_says(f"http://127.0.0.1:{port}/v1", tmp_path / "a", "not reached")
        assert "Connection refused" in told
        assert "requests are held" in told.lower()
        told = await start_says(f"http://127.0.0.1:{port}/v1", tmp_path / "b", "not reached", "--fail-fast")
        assert "equests fail at once" in told
    told = await start_says("http://teacher.invalid/v1", tmp_path / "c", "not known to DNS")
    assert "spelling of the host in --upstream" in told
    assert "requests are held" not in told.lower()


async def test_a_certificate_and_a_port_without_tls_are_reported(tmp_path: Path) -> None:
    certificate = Certificate(tmp_path)
    async with ScriptedTeacher(tls=certificate.context) as teacher:
        told = await start_says(teacher, tmp_path / "a", "not trusted")
        assert "SSL_CERT_FILE" in told
        # Its server closes without an alert, as uvicorn's does: what is told to a call is no more than that.
        url = teacher.base_url.replace("https:", "http:")
        told = await start_says(url, tmp_path / "c", "speaks TLS")
        assert f"Take {teacher.base_url}" in told
    async with without_tls() as address:
        told = await start_says(f"https://{address}/v1", tmp_path / "b", "does not speak TLS")
        assert f"--upstream http://{address}" in told


async def test_an_upstream_that_is_this_proxy_is_reported(tmp_path: Path) -> None:
    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(hand_on(reader, there[1]), hand_on(there[0], writer))

    # A port forward or a gateway in between: nothing in the settings shows where it leads.
    async with nobody() as port, await asyncio.start_server(forward, "127.0.0.1", 0) as server:
        url = f"t=http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        for number, token in enumerate(({}, {"KDPROXY_TOKEN": "t" * 20})):
            told = await start_says(url, tmp_path / str(number), "leads back", "--port", str(port), **token)
            assert "give the teacher's own URL" in told


async def test_an_address_that_is_not_written_in_full_is_reported(tmp_path: Path) -> None:
    assert "127.0.0.1, not 127.1" in await start_says("http://127.1:9/v1", tmp_path, "not reached")


async def test_the_environments_proxy_is_named(tmp_path: Path) -> None:
    async with WireServer([MODELS]) as web_proxy, nobody() as port:
        address = web_proxy.url.removesuffix("/v1")
        variables = {"HTTP_PROXY": address.replace("://", "://user:canary@")}
        told = await start_says(
            "http://teacher.invalid/v1", tmp_path / "a", "reached", **variables, KDPROXY_USE_ENVIRONMENT_PROXY="1"
        )
        assert f"through the environment's proxy {address}" in told
        unused = await start_says(f"http://127.0.0.1:{port}/v1", tmp_path / "b", "not reached", **variables)
    assert f"The environment's proxy {address} is not used" in unused
    assert "export NO_PROXY=127.0.0.1,localhost" in unused
    assert "canary" not in told + unused


async def test_nothing_is_looked_at_in_replay_or_where_it_is_off(tmp_path: Path, send: Any) -> None:
    async with WireServer([MODELS]) as upstream:
        for flags, environment in ((("--mode", "replay"), CHECKS), ((), {"KDPROXY_CHECK_UPSTREAMS": "no"})):
            async with run_proxy_process(upstream.url, tmp_path, *flags, environment=environment) as proxy:
                assert (await send(f"{proxy.address}/_kdproxy/healthz")).status == 200
        assert upstream.requests == []


@pytest.mark.parametrize(
    ("upstreams", "environment", "words"),
    [
        ([], {}, "each passes through to the provider that the request is for"),
        (["t=http://127.0.0.1:9/v1"], {}, "passes through to t (http://127.0.0.1:9/v1) and to no other server"),
        (["t=http://127.0.0.1:9/v1"], {"KDPROXY_TOKEN": "t" * 20}, "No API key will be sent to t (http://127.0.0.1:9"),
        ([], {"KDPROXY_TOKEN": "t" * 20, "OPENAI_API_KEY": KEY}, "No API key will be sent to anthropic, gemini (not"),
    ],
    ids=["built in", "custom", "custom with a token", "built in with a token"],
)
async def test_the_banner_says_whose_key_goes_where(
    tmp_path: Path, upstreams: list[str], environment: dict[str, str], words: str
) -> None:
    async with run_proxy_process(upstreams, tmp_path, environment=environment) as proxy:
        told = await line(proxy, words)
    assert "their own provider" not in told
    assert KEY not in told


# -- what clients hear --------------------------------------------------------------------------------------------


async def at_once(proxy: Any, send: Any, path: str = CHAT) -> Any:
    """Ask; the answer must come long before any back-off is over."""
    started = time.monotonic()
    got = await send(proxy.address + path, ASK)
    assert time.monotonic() - started < 10
    return got


async def test_a_name_that_nobody_has_fails_every_request_at_once(send: Any) -> None:
    async with run_proxy("http://teacher.invalid/v1") as proxy:
        for path in (CHAT, "/v1/messages", "/v1/files"):
            got = await at_once(proxy, send, path)
            assert (got.status, got.headers["x-should-retry"]) == (502, "false")
            assert b"teacher.invalid is not known to DNS" in got.body
            assert b"billed" in got.body


async def test_a_name_that_dns_cannot_look_up_now_is_held(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = asyncio.Event()
    answers = [OSError(socket.EAI_AGAIN), None]

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        if answers.pop(0) is not None:
            looked.set()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        answers.append(None)
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    monkeypatch.setattr("aiohttp.ThreadedResolver.resolve", resolve)
    async with WireServer([chat("late")]) as upstream:
        port = upstream.url.rsplit(":", 1)[1]
        async with run_proxy(f"http://teacher.example:{port}") as proxy:
            got = await send(proxy.address + CHAT, ASK)
    assert looked.is_set()
    assert (got.status, len(upstream.requests)) == (200, 1)


async def test_a_name_that_was_known_is_held_where_dns_forgets_it(send: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A VPN that drops, a router that answers for all names: the name was not mistyped."""
    is_known = True

    async def resolve(self: Any, host: str, port: int = 0, family: Any = 0) -> list[Any]:
        if not is_known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    monkeypatch.setattr("aiohttp.ThreadedResolver.resolve", resolve)
    monkeypatch.setattr("kdproxy.upstream.network.has_route", lambda: True)
    monkeypatch.setattr("aiohttp.connector._DNSCacheTable.expired", lambda *_: True)
    async with WireServer([chat("one"), Close()]) as upstream:
        port = upstream.url.rsplit(":", 1)[1]
        async with run_proxy(f"http://teacher.example:{port}", patience_seconds=1.0) as proxy:
            assert (await send(proxy.address + CHAT, ASK)).status == 200
            is_known = False
            got = await send(proxy.address + CHAT, {**ASK, "seed": 1})
    assert (got.status, got.headers["x-should-retry"]) == (503, "true")
    assert b"not known to DNS" in got.body


async def test_http_to_a_port_with_tls_and_https_to_one_without_fail_at_once(tmp_path: Path, send: Any) -> None:
    context = Certificate(tmp_path).context
    alerts: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # What OpenSSL itself says to a request without TLS: asyncio's own server would only close.
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        peer = context.wrap_bio(incoming, outgoing, server_side=True)
        incoming.write(await reader.read(65_536))
        with pytest.raises(ssl.SSLError):
            peer.do_handshake()
        alerts.append(outgoing.read() or b"\x15\x03\x01\x00\x02\x02\x46")
        writer.write(alerts[-1])
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with run_proxy(f"http://127.0.0.1:{port}/v1") as proxy:
            got = await at_once(proxy, send)
    assert orjson.loads(got.body)["error"]["code"] == "upstream_speaks_tls"
    assert b"not billed" in got.body
    assert len(alerts) == 1
    async with without_tls() as address, run_proxy(f"https://{address}/v1") as proxy:
        got = await at_once(proxy, send)
        assert orjson.loads(got.body)["error"]["code"] == "upstream_not_tls"


@pytest.mark.parametrize(
    ("base", "path", "advice"),
    [
        ("", "/chat/completions", "/v1"),
        ("/v1", "/v1/v1/chat/completions", "twice"),
        ("/openai/v2", "/v1/chat/completions", "before the endpoint"),
    ],
)
async def test_a_wrong_path_is_explained_to_the_client(send: Any, base: str, path: str, advice: str) -> None:
    async with WireServer([json_answer({"detail": "Not Found"}, status="404 Not Found")]) as upstream:
        host = upstream.url.removesuffix("/v1")
        async with run_proxy(host + base) as proxy:
            got = await at_once(proxy, send, f"{path}?key={KEY}")
    error = orjson.loads(got.body)["error"]
    assert (got.status, error["code"]) == (404, "upstream_no_such_path")
    assert advice in error["message"]
    assert host in error["message"]
    assert KEY not in error["message"]
    assert len(upstream.requests) == 1


async def test_a_model_that_nobody_has_is_reported_in_the_providers_own_words(send: Any) -> None:
    body = b'{"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}'
    async with WireServer([answer(body, status="404 Not Found")]) as upstream, run_proxy(upstream.url) as proxy:
        got = await at_once(proxy, send)
    assert (got.status, got.body) == (404, body)


# -- a server that is not there yet -------------------------------------------------------------------------------


async def test_fail_fast_names_the_cause_for_each_request_and_serves_once_the_server_is_there(send: Any) -> None:
    async with nobody() as port, run_proxy(f"http://127.0.0.1:{port}/v1", fail_fast=True) as proxy:
        for seed in range(8):  # more than open the breaker
            got = await at_once(proxy, send)
            assert (got.status, got.headers["x-should-retry"]) == (503, "true"), got.body
            assert b"Connection refused" in got.body, seed
        waiting = [asyncio.create_task(send(proxy.address + CHAT, {**ASK, "seed": seed})) for seed in range(20)]
        async with asyncio.timeout(10):
            for each in waiting:
                got = await each
                assert got.status == 503
                assert b"Connection refused" in got.body
        server = await asyncio.start_server(_chat_server, "127.0.0.1", port)
        async with server, asyncio.timeout(30):
            while (await send(proxy.address + CHAT, ASK)).status != 200:
                await asyncio.sleep(0.1)


async def _chat_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(65_536):
        writer.write(chat("there"))
    writer.close()


async def test_fail_fast_does_not_wait_for_a_server_that_loads(send: Any) -> None:
    loading = json_answer({"error": {"message": "Loading model", "code": 503}}, status="503 Service Unavailable")
    async with WireServer([loading]) as upstream, run_proxy(upstream.url, fail_fast=True) as proxy:
        got = await at_once(proxy, send)
        assert got.status == 503
        assert b"Loading model" in got.body
        assert len(upstream.requests) == 1


async def test_the_log_says_again_and_again_why_requests_are_held(
    send: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(app, "REPORT_SECONDS", 0.2)
    async with nobody() as port, run_proxy(f"http://127.0.0.1:{port}/v1", patience_seconds=2.0) as proxy:
        with caplog.at_level(logging.WARNING, "kdproxy"):
            got = await send(proxy.address + CHAT, ASK)
    assert b"Connection refused" in got.body
    reports = [record for record in caplog.records if record.message == "the upstream still fails"]
    assert len(reports) >= 2
    assert all("Connection refused" in record.__dict__["reason"] for record in reports)
