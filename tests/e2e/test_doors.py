"""The doors: who may come in, by which name, and what of a bad request comes back or is written down."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import openai
import pytest
from yarl import URL

from kdproxy.errors import ConfigError
from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio

CANARY = "canary-5f1e"
TOKEN = "proxy-token-0123456789"
INJECTED = "injected-0123456789"

# -- names ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("POST", CHAT), ("GET", "/v1/models"), ("GET", "/_kdproxy/healthz"), ("GET", "/_kdproxy/metrics")),
        *(("GET", "/"), ("POST", "/v1/files"), ("OPTIONS", "/v1/files"), ("GET", "/_kdproxy/api/stats")),
    ],
)
@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", "[::2]", "0.0.0.0"])
async def test_a_foreign_host_is_refused_on_all_routes(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, method: str, path: str, host: str
) -> None:
    got = await send(proxy.address + path, ASK, method=method, headers={"Host": host})
    assert got.status == 421
    assert teacher.count() == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:8400", "[::1]", "[::1]:8400", "127.0.0.1:1"])
async def test_loopbacks_names_are_welcome(proxy: RunningProxy, send: Any, host: str) -> None:
    assert (await send(f"{proxy.address}/_kdproxy/healthz", headers={"Host": host})).status == 200


@pytest.mark.parametrize("host", ["", "localhost@evil.example", "localhost/x", "local\thost", "localhost:x", "a b"])
async def test_a_malformed_host_is_refused(
    teacher: ScriptedTeacher, proxy: RunningProxy, exchange: Any, host: str
) -> None:
    reply = await exchange(
        proxy.address, f"GET /v1/files HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    )
    assert reply.split()[1] in (b"421", b"400")
    assert teacher.count() == 0


@pytest.mark.parametrize(
    "host",
    [
        # Other spellings of loopback: a browser sends none of them, and a rebound name may look like one.
        *("127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.2", "0", "[::]", "[::ffff:127.0.0.1]"),
        *("[0:0:0:0:0:0:0:1]", "[::1%25lo]", "localhost.", "localhost.evil.example", "127.0.0.1.nip.io"),
        *("localhost%00", "localhost%2eevil.example", "localhost,evil.example", "evil.example#localhost"),
        *("evil.example?localhost", "evil.example\\localhost", "localhost:8400:80", "localhost:", "localhost;x"),
        *("xn--lcalhost-l0a", "ip6-localhost", "host.docker.internal", "kdproxy", "[::1]evil.example", "user@[::1]"),
    ],
)
async def test_what_only_looks_like_loopback_is_refused(
    teacher: ScriptedTeacher, proxy: RunningProxy, exchange: Any, host: str
) -> None:
    for target in ("/v1/models", "/_kdproxy/healthz", f"http://{host}/v1/models"):
        head = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nX-Forwarded-Host: localhost\r\nConnection: close\r\n\r\n"
        assert (await exchange(proxy.address, head.encode())).split()[1] in (b"421", b"400"), target
    assert teacher.count() == 0


async def test_no_host_and_two_hosts_are_refused(teacher: ScriptedTeacher, proxy: RunningProxy, exchange: Any) -> None:
    for hosts in (b"", b"Host: localhost\r\nHost: evil.example\r\n", b"Host: evil.example\r\nHost: localhost\r\n"):
        reply = await exchange(proxy.address, b"GET /v1/files HTTP/1.1\r\n" + hosts + b"Connection: close\r\n\r\n")
        assert reply.split()[1] in (b"421", b"400"), hosts
    assert teacher.count() == 0


async def test_more_names_can_be_allowed(teacher: ScriptedTeacher, send: Any) -> None:
    async with run_proxy(teacher, allowed_hosts=["proxy.lan"]) as proxy:
        for host, status in (("proxy.lan:8400", 200), ("Proxy.LAN", 200), ("x.proxy.lan", 421)):
            got = await send(f"{proxy.address}/_kdproxy/healthz", headers={"Host": host})
            assert got.status == status


# -- targets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        *("http://evil.example/v1/models", "//evil.example/v1/models", "*", "v1/models", "http:///v1/models"),
        # In absolute form a host of this proxy is one of its own (RFC 9112 section 3.2.2); these name another.
        *("http://127.0.0.1@evil.example/v1/models", "http://evil.example#@127.0.0.1/v1/models", "ftp://127.0.0.1/v1"),
        "http://127.0.0.1/v1/../_kdproxy/healthz",
        *("/v1/../_kdproxy/healthz", "/v1/%2e%2E/x", "/./v1", "/v1/..", "/.%2e/x", "/upstreams/a/../b"),
        *("localhost:80", "/upstreams/none/v1/models", "/upstreams/%2e%2e/x", "/upstreams/http://evil.example/"),
    ],
)
async def test_targets_that_lead_elsewhere_are_refused(
    teacher: ScriptedTeacher, proxy: RunningProxy, exchange: Any, target: str
) -> None:
    for method in ("GET", "POST", "CONNECT") if "/" not in target else ("GET", "POST"):
        reply = await exchange(
            proxy.address,
            f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode(),
        )
        assert reply.split()[1] in (b"400", b"404", b"421"), reply
    assert teacher.count() == 0


async def test_no_header_names_an_upstream(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    async with ScriptedTeacher() as other:
        for name in ("X-Upstream", "Kdproxy-Upstream", "X-Forwarded-Host", "Forwarded", "X-Original-URL"):
            await send(f"{proxy.address}/v1/files", headers={name: other.root_url})
        assert (teacher.count(), other.count()) == (5, 0)


async def test_an_unknown_upstream_is_named_with_those_there_are(send: Any, parse_cache_status: Any) -> None:
    async with (
        ScriptedTeacher() as one,
        ScriptedTeacher() as two,
        run_proxy([f"one={one.base_url}", f"two={two.base_url}"]) as proxy,
    ):
        for path in (f"/upstreams/three{CHAT}", CHAT):
            got = await send(proxy.address + path, ASK)
            assert got.status == 404
            error = json.loads(got.body)["error"]
            assert error["code"] == "unknown_upstream"
            assert "/upstreams/NAME" in error["message"]
            assert "one, two" in error["message"]
            assert parse_cache_status(got.cache)["detail"] == "unknown_upstream"
        assert one.count() + two.count() == 0


# -- the token ------------------------------------------------------------------------------------------------------


async def test_a_bind_beyond_loopback_needs_a_token(teacher: ScriptedTeacher) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "example.org"):
        with pytest.raises(ConfigError, match="which requires a token"):
            async with run_proxy(teacher, host=host):
                pytest.fail("it listens")


CARRIERS: list[tuple[str, dict[str, str]]] = [
    ("", {"Authorization": "Bearer {}"}),
    ("", {"Authorization": "bearer {}"}),
    ("", {"x-api-key": "{}"}),
    ("", {"api-key": "{}"}),
    ("", {"x-goog-api-key": "{}"}),
    ("?key={}", {}),
    ("?alt=sse&key={}&x=1", {}),
    ("?%6bey={}", {}),
    ("?api-key={}", {}),
    ("?key={}", {"Authorization": "Bearer {}", "x-api-key": "{}"}),
]


@pytest.mark.parametrize(("query", "headers"), CARRIERS, ids=repr)
@pytest.mark.parametrize("path", ["/v1/files", CHAT, "/v1/models"])
async def test_the_token_is_taken_off_and_the_upstreams_put_on(
    teacher: ScriptedTeacher, http: Any, path: str, query: str, headers: dict[str, str]
) -> None:
    upstreams = {"mine": {"url": teacher.base_url, "credential_env": "MY_KEY"}}
    async with run_proxy(upstreams, environment={"KDPROXY_TOKEN": TOKEN, "MY_KEY": INJECTED}) as proxy:

        async def ask(token: str) -> Any:
            filled = {name: value.format(token) for name, value in headers.items()}
            method = "GET" if path.endswith("models") else "POST"
            url = proxy.address + path + query.format(token)
            body = None if method == "GET" else ASK
            async with http.request(method, URL(url, encoded=True), json=body, headers=filled) as response:
                return response.status, await response.read()

        for wrong in ("", "wrong-token-0123456789", TOKEN + "x", TOKEN[:-1], "naïve-caf\xe9-0123456789"):
            if not (query and not wrong.isascii()):
                assert (await ask(wrong))[0] == 401
        assert teacher.count() == 0
        await ask(TOKEN)
        (call,) = teacher.calls
        seen = call.target + repr(sorted(call.headers.items())) + call.body.decode()
        assert TOKEN not in seen
        assert seen.count(INJECTED) == len(headers) + bool(query)
        for name, value in headers.items():
            assert call.headers[name] in (value.format(INJECTED), f"Bearer {INJECTED}")


async def test_a_wrong_token_is_reported_in_the_providers_shape(
    teacher: ScriptedTeacher, send: Any, clients_of: Any
) -> None:
    async with run_proxy(teacher, environment={"KDPROXY_TOKEN": TOKEN}) as proxy:
        shapes = {}
        for path in (CHAT, "/v1/messages", "/v1beta/models/g:generateContent"):
            got = await send(proxy.address + path, ASK)
            assert got.status == 401
            assert got.headers["x-should-retry"] == "false"
            shapes[path] = json.loads(got.body)
        assert shapes[CHAT]["error"]["code"] == "unauthorized"
        assert shapes["/v1/messages"]["type"] == "error"
        assert shapes["/v1/messages"]["error"]["type"] == "authentication_error"
        assert shapes["/v1beta/models/g:generateContent"]["error"]["status"] == "UNAUTHENTICATED"
        async with clients_of(proxy) as ask:
            with pytest.raises(openai.AuthenticationError, match="Give the proxy's token as the API key"):
                await ask.openai.models.list()
    assert teacher.count() == 0


async def test_header_bytes_beyond_utf8_are_a_wrong_token(teacher: ScriptedTeacher, exchange: Any) -> None:
    async with run_proxy(teacher, environment={"KDPROXY_TOKEN": TOKEN}) as proxy:
        reply = await exchange(
            proxy.address,
            b"GET /v1/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xe9\r\nConnection: close\r\n\r\n",
        )
    assert reply.startswith(b"HTTP/1.1 401 ")


async def test_each_upstream_gets_its_own_credential_and_one_without_gets_none(send: Any, tmp_path: Path) -> None:
    async with ScriptedTeacher() as one, ScriptedTeacher() as two:
        upstreams = {"one": {"url": one.base_url, "credential_env": "ONE_KEY"}, "other": {"url": two.base_url}}
        environment = {"KDPROXY_TOKEN": TOKEN, "ONE_KEY": INJECTED, "OPENAI_API_KEY": "not-for-these-hosts"}
        async with run_proxy(upstreams, data_dir=tmp_path, environment=environment) as proxy:
            headers = {"Authorization": f"Bearer {TOKEN}"}
            await send(f"{proxy.address}/upstreams/one{CHAT}", ASK, headers=headers)
            await send(f"{proxy.address}/upstreams/other{CHAT}", ASK, headers=headers)
        assert one.calls[0].headers["Authorization"] == f"Bearer {INJECTED}"
        assert "Authorization" not in two.calls[0].headers
        for file in tmp_path.rglob("*"):
            if file.is_file():
                assert not any(secret in file.read_bytes() for secret in (TOKEN.encode(), INJECTED.encode())), file


async def test_without_a_token_the_clients_own_credential_passes(teacher: ScriptedTeacher, send: Any) -> None:
    upstreams = {"mine": {"url": teacher.base_url, "credential_env": "MY_KEY"}}
    async with run_proxy(upstreams, environment={"MY_KEY": INJECTED}) as proxy:
        await send(proxy.address + CHAT, ASK, headers={"Authorization": "Bearer mine"})
    assert teacher.calls[0].headers["Authorization"] == "Bearer mine"


# -- malformed requests ---------------------------------------------------------------------------------------------

HOST = b"Host: localhost\r\n"
MALFORMED: dict[str, bytes] = {
    "control character in a credential": b"GET /v1/files HTTP/1.1\r\n" + HOST + b"Authorization: Bearer %b\x01\r\n\r\n",
    "line folding": b"GET /v1/files HTTP/1.1\r\n" + HOST + b"Authorization: Bearer\r\n %b\r\n\r\n",
    "bare CR in a value": b"GET /v1/files HTTP/1.1\r\n" + HOST + b"Authorization: Bearer %b\rX: y\r\n\r\n",
    "space before the colon": b"GET /v1/files HTTP/1.1\r\n" + HOST + b"Authorization : %b\r\n\r\n",
    "no colon": b"GET /v1/files HTTP/1.1\r\n" + HOST + b"Authorization %b\r\n\r\n",
    "over-long value": b"GET /v1/files HTTP/1.1\r\n" + HOST + b"Authorization: %b" + b"a" * 90_000 + b"\r\n\r\n",
    "over-long target": b"GET /v1/files?key=%b" + b"a" * 90_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",
    "bad version": b"GET /v1/files?key=%b HTTP/9.9\r\n" + HOST + b"\r\n",
    "bad method": b"G\x00T /v1/files?key=%b HTTP/1.1\r\n" + HOST + b"\r\n",
    "space in the target": b"GET /v1/files?key=%b x HTTP/1.1\r\n" + HOST + b"\r\n",
    "control character in the target": b"GET /v1/files?key=%b\x01 HTTP/1.1\r\n" + HOST + b"\r\n",
    "length and chunking": b"POST /v1/files HTTP/1.1\r\n"
    + HOST
    + b"X-A: %b\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST /v1/files HTTP/1.1\r\n"
    + HOST
    + b"X-A: %b\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "bad length": b"POST /v1/files HTTP/1.1\r\n" + HOST + b"X-A: %b\r\nContent-Length: +5\r\n\r\nhello",
    "bad coding": b"POST /v1/files HTTP/1.1\r\n" + HOST + b"X-A: %b\r\nTransfer-Encoding: chunked, %b\r\n\r\n",
    "bad chunk": b"POST /v1/chat/completions HTTP/1.1\r\n"
    + HOST
    + b"X-A: %b\r\nTransfer-Encoding: chunked\r\n\r\nzz%b\r\n",
    "bad chunk of a pass-through": b"POST /v1/files HTTP/1.1\r\n"
    + HOST
    + b"X-A: %b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabXX%b\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03%b",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n%b",
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_request_gets_a_neutral_answer_and_leaves_no_trace(
    teacher: ScriptedTeacher,
    tmp_path: Path,
    exchange: Any,
    send: Any,
    case: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.DEBUG)
    request = MALFORMED[case].replace(b"%b", CANARY.encode())
    async with run_proxy(teacher, data_dir=tmp_path) as proxy:
        reply = await exchange(proxy.address, request)
        assert reply.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 502 ", b"HTTP/1.0 400 ")) or reply == b"", reply
        assert CANARY.encode() not in reply
        assert (await send(proxy.address + CHAT, ASK)).status == 200
    assert CANARY not in caplog.text
    assert all(CANARY not in repr(vars(record)) for record in caplog.records)
    assert CANARY not in "".join(capfd.readouterr())
    for file in tmp_path.rglob("*"):
        if file.is_file():
            assert CANARY.encode() not in file.read_bytes(), file
    # Nothing was smuggled in behind it.
    assert teacher.count(CHAT) == 1


async def test_one_request_cannot_hide_another(teacher: ScriptedTeacher, proxy: RunningProxy, exchange: Any) -> None:
    inner = b"GET /v1/hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for head in (
        b"Content-Length: %d\r\n" % len(inner),
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding : chunked\r\nContent-Length: %d\r\n" % len(inner),
        b"Transfer-Encoding: xchunked\r\nContent-Length: %d\r\n" % len(inner),
    ):
        await exchange(
            proxy.address,
            b"POST /v1/files HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n" + head + b"\r\n" + inner,
        )
    assert teacher.count("/v1/hidden") == 0


# -- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1beta/models/g:generateContent"])
@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
async def test_a_body_beyond_the_limit_is_refused_and_the_server_lives(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any, send: Any, path: str, is_chunked: bool
) -> None:
    size = 100 << 20

    async def pieces() -> Any:
        for _ in range(size >> 20):
            yield bytes(1 << 20)

    headers = {} if is_chunked else {"Content-Length": str(size)}
    async with asyncio.timeout(10), http.post(proxy.address + path, data=pieces(), headers=headers) as response:
        assert response.status == 413
        body = json.loads(await response.read())
        message = body["error"]["message"]
        assert "67108864" in message
        assert "body_limit_bytes" in message
        if path == "/v1/messages":
            assert body["error"]["type"] == "request_too_large"
        if path.startswith("/v1beta"):
            assert body["error"]["status"] == "INVALID_ARGUMENT"
    assert (await send(proxy.address + CHAT, ASK)).status == 200
    assert teacher.count() == 1


async def test_the_official_client_is_informed_of_the_limit_at_once(
    teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Any
) -> None:
    async with clients_of(proxy) as ask:
        with pytest.raises(openai.APIStatusError) as caught:
            await ask.openai.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x" * (70 << 20)}]
            )
    assert caught.value.status_code == 413
    assert caught.value.response.headers["x-should-retry"] == "false"
    assert teacher.count() == 0
