"""What a proxy behind a base URL cannot serve: WebSockets and requests signed for AWS. And offers that it ignores."""

import asyncio
from typing import Any

import openai
import orjson
import pytest
from websockets.exceptions import InvalidStatus

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher
from tests.wire.asks import ASK, CHAT, PLAIN

pytestmark = pytest.mark.asyncio

TOKEN = "proxy-token-0123456789"
HANDSHAKE = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}


def raw(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join((*lines, "", "")).encode() + body


async def exchange_on(proxy: RunningProxy, *requests: bytes) -> list[bytes]:
    """Send requests on one connection, each after the reply to the one before."""
    host, _, port = proxy.address.removeprefix("http://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    replies = []
    async with asyncio.timeout(10):
        for request in requests:
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            (length,) = [int(line[16:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length: ")]
            replies.append(head + await reader.readexactly(length))
    writer.close()
    return replies


OVER_HTTP = raw("GET", "/_kdproxy/healthz", {})


@pytest.mark.parametrize(
    ("path", "change"),
    [
        ("/v1/responses", {}),
        ("/v1/realtime?model=gpt-realtime", {}),
        ("/openai/v1/realtime?deployment=x&api-version=1", {}),
        ("/ws/google.ai.generativelanguage.v1beta.GenerativeService.BidiGenerateContent", {}),
        ("/v1/responses", {"Upgrade": "WebSocket"}),
        ("/v1/responses", {"Upgrade": "h2c, websocket"}),
        ("/v1/responses", {"Connection": "keep-alive, Upgrade"}),
        # A reverse proxy without `proxy_set_header Upgrade` takes these two off.
        ("/v1/responses", {"Upgrade": None, "Connection": None}),
    ],
)
@pytest.mark.parametrize("token", [None, TOKEN], ids=["without a token", "with a token"])
async def test_a_websocket_is_refused_with_a_hint_and_the_connection_serves_http(
    teacher: ScriptedTeacher, path: str, change: dict[str, str | None], token: str | None
) -> None:
    headers = {name: value for name, value in (HANDSHAKE | change).items() if value is not None}
    async with run_proxy(teacher, environment={"KDPROXY_TOKEN": token} if token else {}) as proxy:
        reply, after = await exchange_on(proxy, raw("GET", path, headers), OVER_HTTP)
    assert reply.startswith(b"HTTP/1.1 426 "), reply
    assert b"x-should-retry: false" in reply
    assert b"websocket_not_served" in reply
    assert b"POST /v1/responses" in reply
    assert after.endswith(b'{"status": "ok"}')
    assert teacher.count() == 0


async def test_a_websocket_of_a_page_is_refused_as_the_pages(teacher: ScriptedTeacher, proxy: RunningProxy) -> None:
    # A browser asks for no permission before it opens a WebSocket to another site.
    handshake = raw("GET", "/v1/responses", HANDSHAKE | {"Origin": "https://evil.example"})
    reply, after = await exchange_on(proxy, handshake, OVER_HTTP)
    assert after.startswith(b"HTTP/1.1 200 ")
    assert reply.startswith(b"HTTP/1.1 403 ")
    assert teacher.count() == 0


async def test_the_official_client_learns_why_and_works_over_http(
    teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Any
) -> None:
    async with clients_of(proxy) as ask:
        with pytest.raises((InvalidStatus, openai.OpenAIError)) as caught:
            async with ask.openai.realtime.connect(model="gpt-realtime"):
                pytest.fail("it is connected")
        error = caught.value
        assert isinstance(error, InvalidStatus)
        assert error.response.status_code == 426
        assert b"kdproxy does not serve WebSockets" in (error.response.body or b"")
        assert teacher.count() == 0
        await ask.openai.responses.create(model="m", input="Why?")
    assert teacher.count() == 1


SIGNATURE = "Credential=A/20260101/us-east-1/bedrock/aws4_request, SignedHeaders=host;x-amz-date, Signature=0"


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/model/m/converse", {"Authorization": f"AWS4-HMAC-SHA256 {SIGNATURE}", "X-Amz-Date": "20260101T000000Z"}),
        ("/model/m/invoke", {"Authorization": f"AWS4-ECDSA-P256-SHA256 {SIGNATURE}"}),
        ("/v1/messages", {"authorization": f"aws4-hmac-sha256 {SIGNATURE}", "anthropic-version": "2023-06-01"}),
        (CHAT, {"Authorization": f"AWS4-HMAC-SHA256 {SIGNATURE}"}),
        ("/model/m/converse?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature=0", {"Authorization": ""}),
        ("/model/m/converse?x-amz-signature=0", {"Authorization": ""}),
    ],
)
@pytest.mark.parametrize("token", [None, TOKEN], ids=["without a token", "with a token"])
async def test_a_request_signed_for_aws_is_refused_in_its_clients_own_shape(
    teacher: ScriptedTeacher, send: Any, path: str, headers: dict[str, str], token: str | None
) -> None:
    async with run_proxy(teacher, environment={"KDPROXY_TOKEN": token} if token else {}) as proxy:
        got = await send(proxy.address + path, ASK, headers=headers)
    body = orjson.loads(got.body)
    # botocore shows the member `message`; 400 is no status that it tries again.
    assert (got.status, body["code"], body["__type"]) == (400, "signed_request", "ValidationException")
    assert "AWS_BEARER_TOKEN_BEDROCK" in body["message"]
    assert b"Signature=0" not in got.body
    assert teacher.count() == 0


async def test_a_bedrock_key_is_a_bearer_token_as_any_other(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    await send(f"{proxy.address}/model/m/converse", ASK, headers={"Authorization": "Bearer bedrock-api-key-0"})
    await send(f"{proxy.address}/model/m/converse?x=amz-signature", ASK)
    assert teacher.count() == 2


async def test_an_offer_of_h2c_is_ignored_and_no_request_after_it_is_lost(
    teacher: ScriptedTeacher, proxy: RunningProxy
) -> None:
    # Java's client offers h2c on every new connection. Behind some servers its body or its next request is lost.
    offer = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAEAAEAAAAIAAAAB"}
    bodies = [orjson.dumps({**ASK, "model": f"m{number}"}) for number in range(3)]
    requests = [
        raw("POST", CHAT, PLAIN | headers, body) for headers, body in zip((offer, offer, {}), bodies, strict=True)
    ]
    for reply in await exchange_on(proxy, *requests):
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert b"Connection: close" not in reply
    assert [call.body for call in teacher.calls] == bodies
