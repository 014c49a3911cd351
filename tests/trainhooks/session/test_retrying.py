"""The official client without its own retries, on a real server that fails: called again when that helps, as told."""

import asyncio
import email.utils
import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from kdproxy.core import retry as kdproxy_retry
from kdproxy.providers.rules_general import GENERAL
from trainhooks import retry_api_call
from trainhooks.core.retry import Verdict, delay, judge

ANSWER = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "blue"}}],
}
QUESTION: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Which colour?"}]}


class Server(ThreadingHTTPServer):
    """Answers by its script, then well."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: list[tuple[int, dict[str, str], Any]] = []
        self.calls: list[float] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.calls.append(time.monotonic())
        self.rfile.read(int(self.headers["content-length"]))
        status, headers, body = server.script.pop(0) if server.script else (200, {}, ANSWER)
        if status == 0:
            return  # the connection is closed without an answer
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", "content-length": str(len(text)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []

    def record_connection_failure(self, error: BaseException | str) -> None:
        self.said.append(type(error).__name__)

    def record_connection_recovery(self) -> None:
        self.said.append("recovery")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        yield client


def test_what_may_pass_is_tried_again_and_recorded(server: Server, client: openai.OpenAI) -> None:
    server.script = [(429, {}, {}), (503, {}, {}), (0, {}, {})]
    notes = Notes()
    answer = retry_api_call(notes)(client.chat.completions.create)(**QUESTION)
    assert answer.choices[0].message.content == "blue"
    assert len(server.calls) == 4
    assert notes.said == ["RateLimitError", "InternalServerError", "APIConnectionError", "recovery"]


def test_async_too(server: Server) -> None:
    server.script = [(429, {}, {}), (0, {}, {})]
    notes = Notes()

    async def ask() -> Any:
        async with openai.AsyncOpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
            return await retry_api_call(notes)(client.chat.completions.create)(**QUESTION)

    assert asyncio.run(ask()).choices[0].message.content == "blue"
    assert notes.said == ["RateLimitError", "APIConnectionError", "recovery"]


@pytest.mark.parametrize(
    ("headers", "floor"),
    [({"retry-after-ms": "300", "retry-after": "60"}, 0.3), ({"retry-after": "0.4"}, 0.4)],
)
def test_the_providers_wait_is_kept_to(
    server: Server, client: openai.OpenAI, headers: dict[str, str], floor: float
) -> None:
    server.script = [(429, headers, {})]
    retry_api_call()(client.chat.completions.create)(**QUESTION)
    first, second = server.calls
    assert second - first >= floor


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (401, {}, {"error": {"code": "invalid_api_key"}}),
        (403, {}, {}),
        (400, {}, {}),
        (429, {}, {"error": {"type": "insufficient_quota", "code": "insufficient_quota"}}),
        (429, {}, {"error": {"code": "project_spend_limit_exceeded"}}),
        (503, {"x-should-retry": "false"}, {}),
        (501, {}, {}),
    ],
)
def test_what_waiting_does_not_fix_is_raised_at_once(
    server: Server, client: openai.OpenAI, status: int, headers: dict[str, str], body: Any
) -> None:
    server.script = [(status, headers, body)]
    notes = Notes()
    with pytest.raises(openai.APIStatusError) as raised:
        retry_api_call(notes)(client.chat.completions.create)(**QUESTION)
    assert raised.value.status_code == status
    assert len(server.calls) == 1
    assert notes.said == [type(raised.value).__name__]


def test_a_wait_beyond_the_deadline_is_not_begun(server: Server, client: openai.OpenAI) -> None:
    server.script = [(429, {"retry-after": "600"}, {})]
    with pytest.raises(openai.RateLimitError):
        retry_api_call(deadline_seconds=60)(client.chat.completions.create)(**QUESTION)
    assert len(server.calls) == 1


def test_the_deadline_ends_it(server: Server, client: openai.OpenAI) -> None:
    server.script = [(503, {"retry-after": "0.2"}, {})] * 50
    with pytest.raises(openai.InternalServerError):
        retry_api_call(deadline_seconds=1.0)(client.chat.completions.create)(**QUESTION)
    assert 2 <= len(server.calls) <= 5


def test_the_functions_own_errors_are_its_own() -> None:
    notes = Notes()

    @retry_api_call(notes)
    def ask() -> None:
        raise FileNotFoundError("prompts.txt")

    with pytest.raises(FileNotFoundError):
        ask()
    assert notes.said == []


def test_other_clients_are_known_by_their_shape(server: Server) -> None:
    headers = {"retry-after": "7"}
    server.script = [(529, headers, {}), (429, headers, {}), (429, headers, {}), (0, {}, {})]
    errors: list[BaseException] = []
    with anthropic.Anthropic(base_url=server.url, api_key="none", max_retries=0) as client:
        with pytest.raises(anthropic.APIStatusError) as overloaded:
            client.messages.create(max_tokens=1, **QUESTION)
        errors.append(overloaded.value)
    with pytest.raises(httpx2.HTTPStatusError) as limited:
        httpx2.post(server.url, json={}).raise_for_status()
    errors.append(limited.value)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(server.url, data=b"{}")
    refused.value.close()
    errors.append(refused.value)
    assert [judge(error, now=0.0) for error in errors] == [Verdict(is_retried=True, floor_seconds=7.0)] * 3
    with pytest.raises(httpx2.TransportError) as cut:
        httpx2.post(server.url, json={})
    assert judge(cut.value, now=0.0) == Verdict(is_retried=True)


@pytest.mark.parametrize(
    ("error", "is_retried"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (urllib.error.URLError(ConnectionRefusedError()), True),
        (urllib.error.URLError(ssl.SSLCertVerificationError()), False),
        (httpx2.UnsupportedProtocol(""), False),
    ],
)
def test_connections(error: BaseException, is_retried: bool) -> None:
    assert judge(error, now=0.0) == Verdict(is_retried=is_retried)


def limited(headers: dict[str, str]) -> httpx2.HTTPStatusError:
    request = httpx2.Request("POST", "http://127.0.0.1")
    return httpx2.HTTPStatusError("", request=request, response=httpx2.Response(429, headers=headers, request=request))


@pytest.mark.parametrize(
    ("value", "floor"),
    [
        (email.utils.formatdate(1_090, usegmt=True), 90.0),
        (email.utils.formatdate(900, usegmt=True), 0.0),
        ("soon", 0.0),
        ("-5", 0.0),
        ("inf", 0.0),
    ],
)
def test_the_wait_as_a_date_and_as_nonsense(value: str, floor: float) -> None:
    assert judge(limited({"Retry-After": value}), now=1_000.0).floor_seconds == floor


def test_the_random_part_comes_above_the_floor_and_is_bounded() -> None:
    verdict = Verdict(is_retried=True, floor_seconds=5.0)
    assert delay(verdict, 1, 0.0) == 5.0
    assert 5.0 < delay(verdict, 1, 0.999) < delay(verdict, 5, 0.999) <= 25.0
    assert delay(verdict, 10_000, 0.999) <= 25.0


def test_the_wait_in_a_body_is_kept_to(server: Server, client: openai.OpenAI) -> None:
    server.script = [(429, {}, {"error": {"message": "Rate limit reached. Please try again in 7.5s."}})]
    with pytest.raises(openai.RateLimitError) as limited:
        client.chat.completions.create(**QUESTION)
    assert judge(limited.value, now=0.0) == Verdict(is_retried=True, floor_seconds=7.5)


def test_both_packages_judge_a_status_alike() -> None:
    request = httpx2.Request("POST", "http://127.0.0.1")
    for status in range(400, 600):
        response = httpx2.Response(status, request=request)
        error = httpx2.HTTPStatusError("", request=request, response=response)
        proxied = kdproxy_retry.judge(status, {}, b"", GENERAL, now=0.0)
        assert judge(error, now=0.0).is_retried is isinstance(proxied, kdproxy_retry.Again)


def test_an_html_page_under_a_final_status_is_raised_at_once() -> None:
    request = httpx2.Request("POST", "http://127.0.0.1")
    response = httpx2.Response(404, text="<!DOCTYPE html><html></html>", request=request)
    assert judge(httpx2.HTTPStatusError("", request=request, response=response), now=0.0) == Verdict()
