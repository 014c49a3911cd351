"""The table of modes, on a hit and on a miss, and what Cache-Status says of it."""

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import Respond, ScriptedTeacher

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "temperature": 0}

# (mode, whether an answer is stored) -> calls bought, which answer is served, fwd, stored, which one answers later
TABLE: dict[tuple[str, bool], tuple[int, str, str | None, bool, str]] = {
    ("cache", False): (1, "new", "miss", True, "new"),
    ("cache", True): (0, "old", None, False, "old"),
    ("replay", False): (0, "none", None, False, "none"),
    ("replay", True): (0, "old", None, False, "old"),
    ("refresh", False): (1, "new", "miss", True, "new"),
    ("refresh", True): (1, "new", "request", True, "new"),
    ("record", False): (1, "new", "miss", True, "new"),
    ("record", True): (1, "new", "request", False, "old"),
    ("bypass", False): (1, "new", "bypass", False, "none"),
    ("bypass", True): (1, "new", "bypass", False, "old"),
}
BY_HEADER = [({"Kdproxy-Mode": mode}, mode) for mode in ("cache", "replay", "refresh", "record", "bypass")]
BY_DIRECTIVE = [
    ({"Cache-Control": "no-cache"}, "refresh"),
    ({"Cache-Control": "max-age=0, No-Cache"}, "refresh"),
    ({"Cache-Control": "no-store"}, "bypass"),
    ({"Cache-Control": "no-cache, no-store"}, "bypass"),
    ({"Cache-Control": "only-if-cached, no-cache"}, "replay"),
    ({"Cache-Control": "max-age=60"}, "cache"),
    ({"Kdproxy-Mode": "CACHE", "Cache-Control": "no-store"}, "cache"),
]
every_form = pytest.mark.parametrize("is_stream", [False, True], ids=["json", "sse"])


@every_form
@pytest.mark.parametrize("is_stored", [False, True], ids=["miss", "hit"])
@pytest.mark.parametrize(("headers", "mode"), BY_HEADER + BY_DIRECTIVE, ids=str)
async def test_the_table(
    teacher: ScriptedTeacher,
    proxy: RunningProxy,
    send: Any,
    parse_cache_status: Any,
    headers: dict[str, str],
    mode: str,
    is_stored: bool,
    is_stream: bool,
) -> None:
    calls, served, forward, stored, later = TABLE[mode, is_stored]
    body = {**ASK, "stream": True} if is_stream else ASK
    old = await send(proxy.address + CHAT, body) if is_stored else None
    before = teacher.count()
    got = await send(proxy.address + CHAT, body, headers=headers)
    assert teacher.count() - before == calls
    status = parse_cache_status(got.cache)
    if served == "none":
        assert (got.status, status["detail"]) == (504, "not_stored")
    else:
        assert got.status == 200
        assert (old is not None and got.body == old.body) == (served == "old")
        assert len(status["key"]) == 64
    assert status.get("fwd") == forward
    assert status.get("hit", False) == (served == "old")
    if not is_stream:  # a stream's head goes out before anybody knows
        assert status.get("stored", False) == stored
    then = await send(proxy.address + CHAT, body, headers={"Kdproxy-Mode": "replay"})
    bodies = {"old": old and old.body, "new": got.body}
    assert then.body == bodies[later] if later in bodies else then.status == 504


@every_form
async def test_a_refresh_in_one_form_supersedes_the_sample_in_all(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, is_stream: bool
) -> None:
    url = proxy.address + CHAT
    refreshed, other = ({**ASK, "stream": True}, ASK) if is_stream else (ASK, {**ASK, "stream": True})
    for body in (refreshed, other):
        await send(url, body)
    new = await send(url, refreshed, headers={"Cache-Control": "no-cache"})
    replay = {"Kdproxy-Mode": "replay"}
    assert (await send(url, refreshed, headers=replay)).body == new.body
    assert (await send(url, other, headers=replay)).status == 504, "the old answer's other form is gone with it"
    await send(url, other)
    assert (await send(url, refreshed, headers=replay)).body == new.body, "the second form ends nothing"
    assert teacher.count() == 4


async def test_an_answer_that_does_not_fit_stays_beside_the_one_that_does(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """A stream without usage is none for who asks for usage; what was bought of the sample in other forms stays."""
    url, stream = proxy.address + CHAT, {**ASK, "stream": True}
    whole, plain = await send(url, ASK), await send(url, stream)
    counted = await send(url, {**stream, "stream_options": {"include_usage": True}})
    assert b'"usage"' in counted.body
    for _ in range(3):  # from the second time on they may lie in memory
        assert (await send(url, {**stream, "stream_options": {"include_usage": True}})).body == counted.body
        assert (await send(url, stream)).body == plain.body
        assert (await send(url, ASK)).body == whole.body
    assert teacher.count() == 3


async def test_record_keeps_what_nothing_stored_could_answer(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, journal_lines: Any
) -> None:
    """Another form, and usage beside a stream without: else replay would miss them after each recorded run."""
    url, record = proxy.address + CHAT, {"Kdproxy-Mode": "record"}
    stream = {**ASK, "stream": True}
    counted = {**stream, "stream_options": {"include_usage": True}}
    asked = (ASK, stream, counted)
    first = [await send(url, body, headers=record) for body in asked]
    for body in asked:
        await send(url, body, headers=record)
    assert [line["form"] for line in journal_lines(proxy.data_dir)] == ["json", "sse", "sse"]
    replayed = [await send(url, body, headers={"Kdproxy-Mode": "replay"}) for body in asked]
    assert [answer.body for answer in replayed] == [answer.body for answer in first]


@pytest.mark.parametrize("mode", ["cache", "replay", "refresh", "record", "bypass"])
async def test_a_mode_for_all(teacher: ScriptedTeacher, tmp_path: Path, send: Any, mode: str) -> None:
    async with run_proxy(teacher, data_dir=tmp_path) as proxy:
        old = await send(proxy.address + CHAT, ASK)
    async with run_proxy(teacher, data_dir=tmp_path, mode=mode) as proxy:
        calls, served, *_ = TABLE[mode, True]
        got = await send(proxy.address + CHAT, ASK)
        assert (got.body == old.body) == (served == "old")
        assert teacher.count() == 1 + calls


async def test_an_unknown_mode_is_refused(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, parse_cache_status: Any
) -> None:
    for value in ("fast", "", "cache,replay"):
        got = await send(proxy.address + CHAT, ASK, headers={"Kdproxy-Mode": value})
        assert got.status == 400
        assert b"cache, replay, refresh, record, bypass" in got.body
        assert parse_cache_status(got.cache)["detail"] == "unknown_mode"
    assert teacher.count() == 0


async def test_a_replay_server_cannot_be_talked_into_spending(
    teacher: ScriptedTeacher, send: Any, parse_cache_status: Any
) -> None:
    async with run_proxy(teacher, mode="replay") as proxy:
        for headers in (*(headers for headers, _ in BY_HEADER), {"Cache-Control": "no-cache"}, {"Pragma": "no-cache"}):
            for method, path, body in (
                ("POST", CHAT, ASK),
                ("POST", CHAT, {**ASK, "stream": True}),
                ("POST", "/v1/files", ASK),
                ("POST", "/v1/chat/completions", [1]),
                ("GET", "/v1/models", None),
                ("GET", "/v1/files", None),
                ("DELETE", "/v1/files/x", None),
                ("PUT", "/v1/anything", ASK),
            ):
                got = await send(proxy.address + path, body, method=method, headers=headers)
                assert got.status == 504, (method, path, headers)
                assert "fwd" not in parse_cache_status(got.cache)
    assert teacher.count() == 0


async def test_a_replay_server_needs_no_upstream(tmp_path: Path, send: Any) -> None:
    async with ScriptedTeacher() as teacher:
        url = teacher.base_url
        async with run_proxy(f"t={url}", data_dir=tmp_path) as proxy:
            bought = await send(proxy.address + CHAT, ASK)
            models = await send(f"{proxy.address}/v1/models")
    async with run_proxy(f"t={url}", data_dir=tmp_path, mode="replay") as proxy:
        assert (await send(proxy.address + CHAT, ASK)).body == bought.body
        assert (await send(f"{proxy.address}/v1/models")).body == models.body


async def test_replay_serves_the_last_get_of_models(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, journal_lines: Any
) -> None:
    url = f"{proxy.address}/v1/models"
    replay = {"Kdproxy-Mode": "replay"}
    assert (await send(url, headers=replay)).status == 504
    first = await send(url)
    assert (await send(url, headers=replay)).body == first.body
    await send(url)
    assert len(journal_lines(proxy.data_dir)) == 1
    assert (await send(f"{url}/gpt-4.1")).status == 200
    assert b'"id": "gpt-4.1"' in (await send(f"{url}/gpt-4.1", headers=replay)).body
    assert (await send(f"{url}/none-such", headers=replay)).status == 504


async def test_record_keeps_the_models_that_are_there(send: Any) -> None:
    lists = [b'{"object":"list","data":[{"id":"%d"}]}' % number for number in range(3)]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = lists.pop(0)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        writer.write(head % len(body) + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server, run_proxy(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as proxy:
        first, second, third = lists
        for mode, got, kept in (("record", first, first), ("record", second, first), ("cache", third, third)):
            assert (await send(f"{proxy.address}/v1/models", headers={"Kdproxy-Mode": mode})).body == got
            assert (await send(f"{proxy.address}/v1/models", headers={"Kdproxy-Mode": "replay"})).body == kept


async def test_usage_stays_on_hits(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    for _ in range(2):
        got = await send(proxy.address + CHAT, ASK)
        assert b'"total_tokens": ' in got.body


@every_form
async def test_a_sample_given_again_says_so_and_is_warned_of_once(
    teacher: ScriptedTeacher,
    proxy: RunningProxy,
    send: Any,
    parse_cache_status: Any,
    caplog: pytest.LogCaptureFixture,
    is_stream: bool,
) -> None:
    sampled = {**{name: value for name, value in ASK.items() if name != "temperature"}, "stream": is_stream}
    caplog.set_level(logging.WARNING, logger="kdproxy")
    first = await send(proxy.address + CHAT, sampled)
    assert parse_cache_status(first.cache).get("detail") != "collapsed"
    for _ in range(3):
        again = await send(proxy.address + CHAT, sampled)
        assert parse_cache_status(again.cache)["detail"] == "collapsed"
    warnings = [record for record in caplog.records if "the same question again" in record.getMessage()]
    assert len(warnings) == 1
    assert "kdproxy run -- CMD" in warnings[0].getMessage()
    certain = {**ASK, "stream": is_stream}
    await send(proxy.address + CHAT, certain)
    assert "detail" not in parse_cache_status((await send(proxy.address + CHAT, certain)).cache)


async def test_cache_status_is_on_every_reply(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, exchange: Any, parse_cache_status: Any
) -> None:
    requests: list[tuple[str, str, Any, dict[str, str]]] = [
        ("POST", CHAT, ASK, {}),
        ("POST", CHAT, ASK, {}),
        ("POST", CHAT, {**ASK, "stream": True}, {}),
        ("POST", CHAT, [1], {}),
        ("POST", CHAT, ASK, {"Kdproxy-Mode": "?"}),
        ("POST", CHAT, {**ASK, "messages": []}, {}),
        ("POST", CHAT, {**ASK, "seed": 1}, {"Kdproxy-Mode": "replay"}),
        ("POST", "/v1/files", None, {}),
        ("GET", "/v1/models", None, {}),
        ("HEAD", "/v1/models", None, {}),
        ("GET", "/v1/nowhere", None, {}),
        ("DELETE", "/v1/files/x", None, {}),
        ("OPTIONS", "/v1/files", None, {}),
        ("GET", "/a/../b", None, {}),
        ("GET", "/upstreams/none/v1/files", None, {}),
        ("GET", "/_kdproxy/nothing", None, {}),
        ("GET", "/v1/files", None, {"Host": "evil.example"}),
    ]
    for method, path, body, headers in requests:
        got = await send(proxy.address + path, body, method=method, headers=headers)
        found = parse_cache_status(got.cache)
        assert found, (method, path)
        if "fwd-status" in found:
            assert found["fwd-status"] == got.status
    teacher.script(Respond(599, {"Cache-Status": "edge; fwd=miss"}, b""))
    got = await send(f"{proxy.address}/v1/files", ASK)
    # An upstream's own stays before ours (RFC 9211 section 2).
    assert got.headers.getall("Cache-Status")[0] == "edge; fwd=miss"
    parse_cache_status(got.headers.getall("Cache-Status")[1])
    for raw in (b"GET / HTTP/1.1\r\nHost: local host\r\n\r\n", b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"):
        reply = await exchange(proxy.address, raw.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        line = next(line for line in reply.split(b"\r\n") if line.lower().startswith(b"cache-status: "))
        parse_cache_status(line.decode()[len("cache-status: ") :])


async def test_record_buys_once_for_all_that_ask_together(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    headers = {"Kdproxy-Mode": "record"}
    got = await asyncio.gather(*(send(proxy.address + CHAT, ASK, headers=headers) for _ in range(5)))
    stored = await send(proxy.address + CHAT, ASK)
    assert stored.body in {answer.body for answer in got}
