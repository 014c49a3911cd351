"""Mistakes of the first ten minutes, made on purpose: each is told with what happened, what it costs, and what to do.

Beside tests/e2e/test_first_contact.py (upstreams that are mistyped or away), test_full_disk.py and test_port_file.py.
"""

import asyncio
import signal
import socket
import ssl
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.testing.proxy import run_proxy, run_proxy_process, start_serve
from kdproxy.testing.teacher import ScriptedTeacher
from tests.wire import Certificate, WireServer, answer, chat, json_answer
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio

TOKEN = "t" * 20
UPSTREAM = "http://127.0.0.1:9/v1"


async def told_at_start(data: Path, *arguments: str, upstream: Any = (), **environment: str) -> str:
    process = await start_serve(list(upstream), data, *arguments, environment=environment)
    async with asyncio.timeout(20):
        _, err = await process.communicate()
    assert process.returncode in (1, 2)
    assert b"Traceback" not in err
    return err.decode()


def error_of(got: Any) -> tuple[str, str]:
    error = orjson.loads(got.body)["error"]
    return error["code"], error["message"]


@pytest.mark.parametrize(
    ("upstream", "words"),
    [
        ("", "is empty: the variable that it comes from may not be set"),
        ("$BASE_URL/v1", "holds a variable that was not filled in"),
        ("${TEACHER}", "holds a variable that was not filled in"),
        ("https://https://api.openai.com/v1", "did you mean https://api.openai.com/v1?"),
        ("http:/localhost:8000/v1", "did you mean http://localhost:8000/v1?"),
        ("localhost:8000", "did you mean http://localhost:8000?"),
        ("http://localhost:8000/v1/chat/completions", "did you mean http://localhost:8000/v1?"),
        ("https://api.openai.com/v1/v1", "did you mean https://api.openai.com/v1?"),
        ("http://127.0.0.1:0/v1", "must look like https://host/v1"),
    ],
)
async def test_an_upstream_that_is_no_url_is_reported_with_the_one_that_was_meant(
    tmp_path: Path, upstream: str, words: str
) -> None:
    told = await told_at_start(tmp_path / "data", "--upstream", upstream)
    assert words in told
    assert not (tmp_path / "data").exists()


async def test_a_key_that_the_provider_refuses(send: Any) -> None:
    body = b'{"error": {"message": "Incorrect API key provided: x.", "code": "invalid_api_key"}}'
    async with WireServer([answer(body, status="401 Unauthorized")]) as upstream, run_proxy(upstream.url) as proxy:
        for _ in range(2):  # refused calls are free, and not remembered: another key may be right
            got = await send(proxy.address + CHAT, ASK, headers={"Authorization": "Bearer x"})
            assert (got.status, got.body) == (401, body)
        assert proxy.app.ledger.as_dict()["calls"]["refused"] == len(upstream.requests) == 2


async def test_a_model_that_the_provider_does_not_have(send: Any) -> None:
    body = b'{"error": {"message": "The model `gpt-5o` does not exist", "code": "model_not_found"}}'
    async with WireServer([answer(body, status="404 Not Found")]) as upstream, run_proxy(upstream.url) as proxy:
        got = await send(proxy.address + CHAT, ASK)
        assert (got.status, got.body, len(upstream.requests)) == (404, body, 1)


async def test_a_wrong_token(teacher: ScriptedTeacher, send: Any) -> None:
    async with run_proxy(teacher, environment={"KDPROXY_TOKEN": TOKEN}) as proxy:
        for headers in ({}, {"Authorization": "Bearer sk-of-the-provider"}):
            code, message = error_of(await send(proxy.address + CHAT, ASK, headers=headers))
            assert code == "unauthorized"
            assert "Nothing was sent to the provider" in message
            assert "the proxy's token as the API key" in message
    assert teacher.count() == 0


async def test_a_second_server_on_one_directory_and_on_one_port(teacher: ScriptedTeacher, tmp_path: Path) -> None:
    async with run_proxy_process(teacher, tmp_path / "a") as proxy:
        told = await told_at_start(tmp_path / "a", upstream=[UPSTREAM])
        assert f"belongs to process {proxy.pid}" in told
        assert "kdproxy stats" in told
        assert "--data-dir" in told
        port = proxy.address.rsplit(":", 1)[1]
        told = await told_at_start(tmp_path / "b", "--port", port, upstream=[UPSTREAM])
        assert f"127.0.0.1:{port}" in told
        assert "--port" in told


async def test_an_upstream_that_leads_back_costs_nothing(send: Any) -> None:
    async def hand_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
        writer.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = await asyncio.open_connection("127.0.0.1", int(address.rsplit(":", 1)[1]))
        await asyncio.gather(hand_on(reader, there[1]), hand_on(there[0], writer))

    server = await asyncio.start_server(forward, "127.0.0.1", 0)
    async with server, run_proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1") as proxy:
        address = proxy.address
        got = await send(address + CHAT, ASK)
    code, message = error_of(got)
    assert (got.status, code) == (508, "loop_detected")
    assert "the teacher's own URL" in message
    assert "nothing was sent to a provider" in message.lower()


async def test_a_client_that_speaks_tls_is_named_once_in_the_log(tmp_path: Path) -> None:
    async with run_proxy_process(UPSTREAM, tmp_path) as proxy:
        port = int(proxy.address.rsplit(":", 1)[1])
        for _ in range(2):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
        proxy.send(signal.SIGTERM)
        await proxy.wait()
        _, err = await proxy.output()
    assert err.count("a client spoke TLS") == 1
    assert "must begin with http://" in err


async def test_a_clock_that_is_wrong_shows_in_a_certificate(tmp_path: Path, send: Any) -> None:
    for name, shift in (("expired", timedelta(days=-9)), ("not yet valid", timedelta(days=9))):
        certificate = Certificate(tmp_path, shift=shift)
        async with ScriptedTeacher(tls=certificate.context) as teacher:
            environment = {"SSL_CERT_FILE": str(certificate.path)}
            async with run_proxy_process(teacher, tmp_path / name, environment=environment) as proxy:
                code, message = error_of(await send(proxy.address + CHAT, ASK))
        assert code == "upstream_untrusted"
        assert "clock" in message
        assert "nothing is billed" in message


async def test_a_teacher_that_listens_on_ipv6_alone(send: Any) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            writer.write(chat("six"))
        writer.close()

    server = await asyncio.start_server(serve, "::1", 0, family=socket.AF_INET6)
    async with server:
        port = server.sockets[0].getsockname()[1]
        async with run_proxy(f"http://[::1]:{port}/v1") as proxy:
            assert (await send(proxy.address + CHAT, ASK)).status == 200
        # One that listens on IPv6 alone is not there for IPv4, and the message names what was tried.
        async with run_proxy(f"http://127.0.0.1:{port}/v1", patience_seconds=1.0) as proxy:
            got = await send(proxy.address + CHAT, ASK)
    assert got.status == 503
    assert b"Connection refused" in got.body


async def test_a_cut_journal_says_what_is_bought_again(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    async with run_proxy_process([f"t={teacher.base_url}"], tmp_path) as proxy:
        for seed in range(3):
            assert (await send(proxy.address + CHAT, {**ASK, "seed": seed})).status == 200
        proxy.send(signal.SIGTERM)
        await proxy.wait()
    journal = tmp_path / "api_recovery.jsonl"
    journal.write_bytes(journal.read_bytes()[:-40])
    async with run_proxy_process([f"t={teacher.base_url}"], tmp_path) as proxy:
        for seed in range(3):
            assert (await send(proxy.address + CHAT, {**ASK, "seed": seed})).status == 200
        proxy.send(signal.SIGTERM)
        await proxy.wait()
        _, err = await proxy.output()
    assert "an unfinished last line was cut off" in err
    assert "bought again" in err
    assert teacher.count() == 4
    journal.unlink()
    told = await told_at_start(tmp_path, upstream=[UPSTREAM])
    assert "is missing, but its index knows" in told
    assert "before anything is bought again" in told


@pytest.mark.parametrize("base", ["", "/v1", "/v1/"])
async def test_a_base_url_with_and_without_its_version_is_taken(send: Any, base: str) -> None:
    """What an SDK's client makes of it: with `/v1` missing or given, at an upstream with and without one."""
    async with WireServer([chat("x")]) as upstream:
        host = upstream.url.removesuffix("/v1")
        async with run_proxy(host + base) as proxy:
            assert (await send(f"{proxy.address}/v1/chat/completions", ASK)).status == 200
        assert upstream.requests[0].path == "/v1/chat/completions"


async def test_a_page_of_a_captive_portal_is_never_an_answer(send: Any) -> None:
    page = answer(b"<!doctype html><html>Please log in</html>", kind="text/html")
    async with WireServer([page]) as upstream, run_proxy(upstream.url, retry_attempts=1) as proxy:
        got = await send(proxy.address + CHAT, ASK)
    assert got.status == 502


async def test_a_command_beside_no_proxy_and_no_data_says_what_is_missing(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kdproxy", "stats", "--data-dir", str(tmp_path / "none")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, err = await process.communicate()
    assert process.returncode != 0
    assert str(tmp_path / "none") in err.decode()


async def test_a_wrong_host_header_is_reported_with_the_setting(teacher: ScriptedTeacher, send: Any) -> None:
    async with run_proxy(teacher) as proxy:
        code, message = error_of(await send(proxy.address + CHAT, ASK, headers={"Host": "teacher-proxy:8400"}))
    assert code == "wrong_host"
    assert "allowed_hosts" in message
    assert teacher.count() == 0


async def test_a_server_that_wants_another_kind_of_key_answers_in_its_words(send: Any) -> None:
    body = {"type": "error", "error": {"type": "authentication_error", "message": "x-api-key header is required"}}
    refusal = json_answer(body, status="401 Unauthorized")
    async with WireServer([refusal]) as upstream, run_proxy(upstream.url) as proxy:
        got = await send(f"{proxy.address}/v1/messages", {**ASK, "max_tokens": 9})
    assert (got.status, orjson.loads(got.body)) == (401, body)
