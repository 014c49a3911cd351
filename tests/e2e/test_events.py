"""Each POST that an upstream sees is one `sent` line, and each has one end: counted at a raw socket, in every form."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from kdproxy.core.line import is_whole
from kdproxy.testing.proxy import run_proxy, run_proxy_process
from tests.wire import (
    Connection,
    Play,
    Request,
    Reset,
    WireServer,
    answer,
    chat,
    chat_body,
    chunked,
    json_answer,
    sse,
    sse_head,
)
from tests.wire.asks import ASK, CHAT

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("fast_backoff")]

UNKEPT = {**ASK, "tools": [{"type": "web_search"}]}
GEMINI = "/v1beta/models/g:generateContent"
CUT = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"id":'
BYPASS = {"Cache-Control": "no-store, no-cache"}
SECRET = "sk-proj-0123456789abcdefghij"


def to_posts(*plays: Play) -> Callable[[Request], Play]:
    """Play to each POST in turn, the last one for ever; a GET finds nothing."""
    left = list(plays)

    def play(request: Request) -> Play:
        if request.line.startswith("GET"):
            return [answer(b"{}", status="404 Not Found")]
        return left.pop(0) if len(left) > 1 else left[0]

    return play


def posts(upstream: WireServer) -> int:
    return sum(request.line.startswith("POST") for request in upstream.requests)


def events(data: Path) -> list[dict[str, Any]]:
    raw = (data / "events.jsonl").read_bytes()
    assert all(map(is_whole, raw.splitlines(keepends=True)))
    return [orjson.loads(line) for line in raw.splitlines()]


def answers(data: Path) -> list[dict[str, Any]]:
    raw = (data / "api_recovery.jsonl").read_bytes() if (data / "api_recovery.jsonl").exists() else b""
    return [members for line in raw.splitlines() if (members := orjson.loads(line))["kind"] == "answer"]


def balance(data: Path) -> Counter[str]:
    """How the calls ended; each has one end, and none is without."""
    found = events(data)
    sent = {f"{each['origin']}/{each['seq']}": each for each in found if each["kind"] == "sent"}
    ends = Counter[str]()
    seen = []
    for each in found:
        if each["kind"] == "ended":
            seen.append(each["call"])
            ends[f"{each['outcome']} {each['billed']}"] += 1
    for each in answers(data):
        seen.append(each["call"])
        ends["kept"] += 1
    assert sorted(seen) == sorted(sent), "each call has one end"
    return ends


def delta(text: str, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]}


STREAM = sse_head() + sse(delta("Hel"), delta("lo", "stop"), "data: [DONE]\n\n") + chunked(end=True)
HALF_A_STREAM = sse_head() + sse(delta("Hel"))
BUSY = json_answer({"error": {"message": "slow down"}}, status="429 Too Many Requests", headers=("retry-after-ms: 1",))
DOWN = json_answer({"error": {"message": "no"}}, status="500 Internal Server Error")
GATEWAY = json_answer({"error": {"message": "late"}}, status="504 Gateway Timeout")
WRONG = json_answer({"error": {"message": f"Incorrect API key provided: {SECRET}"}}, status="400 Bad Request")
UNFINISHED = json_answer(chat_body(finish_reason=None))
MP3 = answer(b"ID3 sound", kind="audio/mpeg")
MESSAGE = json_answer(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "stop_reason": "end_turn",
        "content": [{"type": "text", "text": "Hello."}],
        "usage": {"input_tokens": 1, "output_tokens": 1},
    }
)
CONTENT = json_answer(
    {"candidates": [{"index": 0, "content": {"parts": [{"text": "Hi."}], "role": "model"}, "finishReason": "STOP"}]}
)
VECTOR = json_answer(
    {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
)

Case = tuple[str, dict[str, Any], dict[str, str], list[Play], dict[str, int]]
CASES: dict[str, Case] = {
    "json": (CHAT, ASK, {}, [[chat()]], {"kept": 1}),
    "stream": (CHAT, {**ASK, "stream": True}, {}, [[STREAM]], {"kept": 1}),
    "anthropic": ("/v1/messages", {**ASK, "max_tokens": 9}, {}, [[MESSAGE]], {"kept": 1}),
    "gemini": (GEMINI, {"contents": [{"parts": [{"text": "x"}]}]}, {}, [[CONTENT]], {"kept": 1}),
    "embeddings": ("/v1/embeddings", {"model": "m", "input": "x"}, {}, [[VECTOR]], {"kept": 1}),
    "speech": ("/v1/audio/speech", {"model": "m", "input": "x", "voice": "v"}, {}, [[MP3]], {"kept": 1}),
    "refused, then kept": (CHAT, ASK, {}, [[BUSY], [BUSY], [chat()]], {"refused no": 2, "kept": 1}),
    "down, then kept": (CHAT, ASK, {}, [[DOWN], [chat()]], {"refused no": 1, "kept": 1}),
    "refused for good": (CHAT, ASK, {}, [[WRONG]], {"refused no": 1}),
    "cut, then kept": (CHAT, ASK, {}, [[CUT, Reset()], [chat()]], {"maybe_billed maybe": 1, "kept": 1}),
    "reset for ever": (CHAT, ASK, {}, [[Reset()]], {"maybe_billed maybe": 3}),
    "a gateway that waited": (CHAT, ASK, {}, [[GATEWAY]], {"maybe_billed maybe": 3}),
    "anthropic cut": ("/v1/messages", {**ASK, "max_tokens": 9}, {}, [[CUT, Reset()]], {"maybe_billed maybe": 3}),
    "stream cut": (CHAT, {**ASK, "stream": True}, {}, [[HALF_A_STREAM, Reset()]], {"maybe_billed maybe": 1}),
    "not whole": (CHAT, ASK, {}, [[UNFINISHED]], {"answered yes": 1}),
    "bypass": (CHAT, ASK, BYPASS, [[chat()]], {"answered yes": 1}),
    "bypass stream": (CHAT, {**ASK, "stream": True}, BYPASS, [[STREAM]], {"answered yes": 1}),
    "unkept": (CHAT, UNKEPT, {}, [[chat()]], {"answered yes": 1}),
    "unkept stream": (CHAT, {**UNKEPT, "stream": True}, {}, [[STREAM]], {"answered yes": 1}),
    "unkept refused": (CHAT, UNKEPT, {}, [[BUSY], [chat()]], {"refused no": 1, "answered yes": 1}),
    "unkept cut": (CHAT, UNKEPT, {}, [[CUT, Reset()]], {"maybe_billed maybe": 3}),
    "passed": ("/v1/batches", {"input_file_id": "f"}, {}, [[json_answer({"id": "b"})]], {"answered yes": 1}),
    "passed, refused": ("/v1/batches", {}, {}, [[WRONG]], {"refused no": 1}),
    "passed, cut": ("/v1/batches", {}, {}, [[CUT, Reset()]], {"maybe_billed maybe": 1}),
}


@pytest.mark.parametrize("case", CASES)
async def test_each_post_is_one_sent_line_with_one_end(http: aiohttp.ClientSession, tmp_path: Path, case: str) -> None:
    path, body, headers, plays, expected = CASES[case]
    async with WireServer(to_posts(*plays)) as upstream:
        async with run_proxy(upstream.url, data_dir=tmp_path / "d") as proxy:
            manners = {"Authorization": f"Bearer {SECRET}", **headers}
            with contextlib.suppress(aiohttp.ClientPayloadError):
                async with http.post(proxy.address + path, json=body, headers=manners) as response:
                    await response.read()
            # What the client has seen the end of is on record by now.
            ends = balance(tmp_path / "d")
            told = proxy.app.ledger.as_dict()["calls"]
        assert ends == expected
        found = events(tmp_path / "d")
        assert sum(each["kind"] == "sent" for each in found) == posts(upstream) == sum(expected.values())
    assert balance(tmp_path / "d") == expected, "the proxy's end adds nothing"
    assert isinstance(told, dict)
    assert SECRET.encode() not in (tmp_path / "d" / "events.jsonl").read_bytes()
    assert all(
        len(line) < 300 for line in (tmp_path / "d" / "events.jsonl").read_bytes().splitlines() if b'"sent"' in line
    )


async def test_an_end_has_what_the_provider_said(send: Any, tmp_path: Path) -> None:
    words = json_answer(
        {"error": {"message": f"bad key {SECRET} " + "x" * 5_000}},
        status="400 Bad Request",
        headers=("x-request-id: r-7",),
    )
    async with WireServer(to_posts([words])) as upstream, run_proxy(upstream.url, data_dir=tmp_path) as proxy:
        await send(proxy.address + CHAT, ASK, headers={"Authorization": f"Bearer {SECRET}"})
    sent, ended = events(tmp_path)[1:]
    assert (sent["model"], sent["upstream"], len(sent["key"]), len(sent["credential"])) == (
        "m",
        sent["upstream"],
        32,
        16,
    )
    assert (ended["status"], ended["request_id"], ended["outcome"], ended["billed"]) == (400, "r-7", "refused", "no")
    assert ended["error"].startswith('{"error": {"message": "bad key ********')
    assert len(ended["error"].encode()) == 2_048
    assert ended["seconds"] >= 0


async def test_usage_of_what_is_not_kept_is_on_record(send: Any, tmp_path: Path) -> None:
    async with WireServer(to_posts([chat()])) as upstream, run_proxy(upstream.url, data_dir=tmp_path) as proxy:
        await send(proxy.address + CHAT, ASK, headers=BYPASS)
    assert events(tmp_path)[-1]["usage"] == {"input_tokens": 3, "output_tokens": 2}


async def test_a_hit_and_a_server_that_is_not_there_write_nothing(send: Any, tmp_path: Path) -> None:
    async with WireServer(to_posts([chat()])) as upstream, run_proxy(upstream.url, data_dir=tmp_path) as proxy:
        await send(proxy.address + CHAT, ASK)
        before = (tmp_path / "events.jsonl").read_bytes()
        for _ in range(3):
            assert "hit" in (await send(proxy.address + CHAT, ASK)).cache
        assert (tmp_path / "events.jsonl").read_bytes() == before
    settings = {"retry_attempts": 2}
    async with run_proxy("http://127.0.0.1:9/v1", data_dir=tmp_path / "other", **settings) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 503
        assert (await send(proxy.address + "/v1/batches", {})).status == 502
        assert [each["kind"] for each in events(tmp_path / "other")] == ["start"]


async def until_it_leaves(connection: Connection, request: Request) -> None:
    await connection.reader.read()


@pytest.mark.parametrize("body", [UNKEPT, {**UNKEPT, "stream": True}], ids=["json", "stream"])
async def test_a_call_whose_client_leaves_is_abandoned_and_may_be_billed(
    http: aiohttp.ClientSession, tmp_path: Path, body: dict[str, Any]
) -> None:
    async with WireServer(to_posts([until_it_leaves])) as upstream:
        async with run_proxy(upstream.url, data_dir=tmp_path) as proxy:
            with pytest.raises(TimeoutError):
                await http.post(proxy.address + CHAT, json=body, timeout=aiohttp.ClientTimeout(total=0.3))
            await upstream.wait_for_end(upstream.requests[-1].connection)
        assert balance(tmp_path) == {"abandoned maybe": 1}
        assert posts(upstream) == 1
    assert events(tmp_path)[-1]["detached"] is True


@pytest.mark.parametrize("body", [ASK, {**ASK, "stream": True}, UNKEPT], ids=["json", "stream", "unkept"])
async def test_a_call_in_flight_at_a_kill_is_counted_and_listed(
    http: aiohttp.ClientSession, send: Any, tmp_path: Path, body: dict[str, Any]
) -> None:
    """And its question is not sent three more times by the process that follows."""
    plays: list[Play] = [[asyncio.Event()], [CUT, Reset()]]
    async with WireServer(to_posts(*plays)) as upstream:
        async with run_proxy_process(upstream.url, tmp_path) as proxy:
            waiting = asyncio.create_task(http.post(proxy.address + CHAT, json=body))
            await upstream.wait_for_requests(1)
            await proxy.kill()
            with contextlib.suppress(aiohttp.ClientError):
                await waiting
        assert [each["kind"] for each in events(tmp_path)] == ["start", "sent"]
        async with run_proxy(upstream.url, data_dir=tmp_path) as running:
            state = running.app._directory.archive.calls.state()
            assert (state.killed, len(state.killed_calls), state.maybe_billed) == (1, 1, 1)
            got = await send(running.address + CHAT, body)
            assert (got.status, got.headers["x-should-retry"]) == (502, "false")
            assert posts(upstream) == 3, "one before the kill and two more"


@pytest.mark.parametrize("ends", ["stop", "kill"])
async def test_a_restart_never_buys_an_always_cut_question_three_more_times(
    send: Any, tmp_path: Path, ends: str
) -> None:
    async with WireServer(to_posts([CUT, Reset()])) as upstream:
        for _ in range(3):
            async with run_proxy_process(upstream.url, tmp_path) as proxy:
                got = await send(proxy.address + CHAT, ASK)
                assert (got.status, got.headers["x-should-retry"]) == (502, "false")
                assert b"3 calls of this question returned no answer" in got.body
                if ends == "kill":
                    await proxy.kill()
        assert posts(upstream) == 3


async def test_an_answer_clears_what_a_restart_would_remember(send: Any, tmp_path: Path) -> None:
    async with WireServer(to_posts([CUT, Reset()], [CUT, Reset()], [chat()])) as upstream:
        async with run_proxy(upstream.url, data_dir=tmp_path) as proxy:
            assert (await send(proxy.address + CHAT, ASK)).status == 200
        async with run_proxy(upstream.url, data_dir=tmp_path) as proxy:
            assert not len(proxy.app._fetcher.history)


async def test_a_kill_between_answer_and_index_leaves_no_call_open(teacher: Any, send: Any, tmp_path: Path) -> None:
    for _ in range(3):
        async with run_proxy_process(teacher, tmp_path) as proxy:
            for number in range(3):
                await send(proxy.address + CHAT, {**ASK, "seed": number + teacher.count()})
            await proxy.kill()
    assert balance(tmp_path) == {"kept": 9}
    async with run_proxy(teacher, data_dir=tmp_path) as running:
        state = running.app._directory.archive.calls.state()
        assert (state.sent, state.kept, state.killed) == (9, 9, 0)
