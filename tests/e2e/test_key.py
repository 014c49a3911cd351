"""What makes two requests one question, asked over the wire: the teacher's counter is the judge."""

import json
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import Respond, ScriptedTeacher

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
BASE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "temperature": 0}


def raw(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.mark.parametrize(
    ("path", "one", "other"),
    [
        (CHAT, BASE, dict(reversed(BASE.items()))),
        (CHAT, BASE, json.dumps(BASE, indent=4).encode()),
        (CHAT, BASE, {**BASE, "temperature": 0.0}),
        (CHAT, BASE, raw(BASE).replace(b"Why?", b"\\u0057hy?")),
        (CHAT, BASE, {**BASE, "user": "u", "metadata": {"a": "b"}, "store": True, "safety_identifier": "s"}),
        (CHAT, BASE, {**BASE, "prompt_cache_key": "k", "prompt_cache_retention": "24h", "stream": False}),
        (CHAT, {**BASE, "seed": 1}, {**BASE, "seed": 1.0}),
        (CHAT, {**BASE, "seed": 12345678901234567890123}, raw({**BASE, "seed": 12345678901234567890123}) + b"\n"),
        ("/v1/messages", {**BASE, "max_tokens": 9}, {**BASE, "max_tokens": 9, "metadata": {"user_id": "u"}}),
        ("/v1/responses", {"model": "m", "input": "x"}, {"input": "x", "model": "m", "user": "u", "store": False}),
        ("/v1/embeddings", {"model": "m", "input": "x"}, {"model": "m", "input": "x", "user": "u"}),
    ],
)
async def test_equal_in_meaning_is_one_question(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, path: str, one: Any, other: Any
) -> None:
    headers = {"anthropic-version": "2023-06-01"} if path == "/v1/messages" else {}
    first = await send(proxy.address + path, data=raw(one), headers=headers)
    second = await send(proxy.address + path, data=raw(other), headers=headers)
    assert (first.status, second.body, teacher.count()) == (200, first.body, 1)


@pytest.mark.parametrize(
    ("path", "one", "other"),
    [
        (CHAT, BASE, {**BASE, "some_new_field": 1}),
        (CHAT, BASE, {**BASE, "guided_json": {"type": "object"}}),
        (CHAT, BASE, {**BASE, "messages": [{"role": "user", "content": "why?"}]}),
        (CHAT, BASE, {**BASE, "messages": [{"role": "user", "content": "Why? "}]}),
        (CHAT, {**BASE, "seed": 12345678901234567890123}, {**BASE, "seed": 12345678901234567890124}),
        (CHAT, {**BASE, "top_p": 0.1}, raw({**BASE, "top_p": 0.1}).replace(b"0.1", b"0.1000000000000000000001")),
        (CHAT, {**BASE, "x": "é"}, {**BASE, "x": "e\u0301"}),
        (CHAT, {**BASE, "x": None}, BASE),
        (CHAT, {**BASE, "x": 1}, {**BASE, "x": True}),
        (CHAT, {**BASE, "x": 1}, {**BASE, "x": "1"}),
        (CHAT, {**BASE, "logprobs": True}, {**BASE, "logprobs": True, "top_logprobs": 3}),
        (CHAT + "?api-version=1", BASE, None),
        ("/openai/deployments/a/chat/completions", BASE, None),
        ("/v1/embeddings", {"model": "m", "input": ["a", "b"]}, {"model": "m", "input": ["b", "a"]}),
    ],
)
async def test_another_meaning_is_another_question(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, path: str, one: Any, other: Any
) -> None:
    await send(proxy.address + path, data=raw(one))
    if other is None:
        await send(proxy.address + CHAT, data=raw(one))
    else:
        await send(proxy.address + path, data=raw(other))
    assert teacher.count() == 2


async def test_the_credential_is_not_in_the_key(teacher: ScriptedTeacher, proxy: RunningProxy, send: Any) -> None:
    bodies = set()
    for headers in (
        {"Authorization": "Bearer one"},
        {"Authorization": "Bearer two", "OpenAI-Organization": "o", "User-Agent": "x", "x-stainless-retry-count": "1"},
        {"Authorization": "", "api-key": "three"},
        {"Authorization": "", "x-api-key": "four"},
        {"Authorization": "", "x-goog-api-key": "five"},
    ):
        bodies.add((await send(proxy.address + CHAT, BASE, headers=headers)).body)
    for query in ("?key=six", "?%6bey=seven", "?api_key=eight&api-key=nine"):
        bodies.add((await send(proxy.address + CHAT + query, BASE)).body)
    assert (len(bodies), teacher.count()) == (1, 1)


async def test_headers_that_change_the_answer_are_in_the_key(
    teacher: ScriptedTeacher, proxy: RunningProxy, http: Any
) -> None:
    async def ask(*headers: tuple[str, str]) -> None:
        pairs = [("Authorization", "Bearer x"), ("Content-Type", "application/json"), *headers]
        async with http.post(proxy.address + CHAT, data=raw(BASE), headers=pairs) as response:
            await response.read()

    for number, headers in enumerate(
        [
            (),
            (("OpenAI-Beta", "a"),),
            (("OpenAI-Beta", "a"), ("OpenAI-Beta", "b")),
            (("OpenAI-Beta", "a"), ("openai-beta", "c")),
            (("anthropic-beta", "a"),),
        ],
        start=1,
    ):
        await ask(*headers)
        assert teacher.count() == number, headers
    await ask(("OpenAI-Beta", "b"), ("OpenAI-Beta", "a"))
    assert teacher.count() == 5


async def test_two_upstreams_do_not_share_answers(send: Any, tmp_path: Path) -> None:
    async with (
        ScriptedTeacher() as one,
        ScriptedTeacher() as two,
        run_proxy([f"one={one.base_url}", f"two={two.base_url}"], data_dir=tmp_path) as proxy,
    ):
        for name in ("one", "two", "one", "two"):
            await send(f"{proxy.address}/upstreams/{name}{CHAT}", BASE)
        assert (one.count(), two.count()) == (1, 1)


async def test_a_version_in_the_path_is_joined_once_and_keyed_alike(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    """A base URL with and without /v1 are both in use; they mean the same."""
    first = await send(f"{proxy.address}/v1/chat/completions", BASE)
    second = await send(f"{proxy.address}/chat/completions", BASE)
    assert second.body == first.body
    assert [call.target for call in teacher.calls] == ["/v1/chat/completions"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m","model":"m2","messages":[{"role":"user","content":"a"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"x":NaN}',
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"x":Infinity}',
        b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"m","messages":[',
        b"not json",
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"\xef\xbb\xbf{}",
        b'{"model":"m","messages":' + b"[" * 200 + b"]" * 200 + b"}",
        b'{"model":"m","messages":"text"}',
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"stream":"yes"}',
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"stream":1}',
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"stream_options":[]}',
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"tools":{}}',
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[{"type":{}}]}',
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[{"type":"a\\r\\nSet-Cookie: x\\"\\\\"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"a"}],"tools":[{"type":"\xf0\x9f\xa6\x8a"}]}',
        b'{"model":"m","messages":[{"role":["user"],"content":"a"}],"tools":[{"type":"web_search"}]}',
    ],
)
async def test_what_no_strict_parser_takes_goes_to_the_provider_uncached(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, parse_cache_status: Any, body: bytes
) -> None:
    for number in (1, 2):
        answer = b'{"error":{"message":"said by the provider %d"}}' % number
        teacher.script(Respond(400, {"X-Own": str(number)}, answer))
        got = await send(proxy.address + CHAT, data=body)
        assert (got.status, got.body, got.headers["X-Own"]) == (400, answer, str(number))
        assert teacher.calls[-1].body == body
        found = parse_cache_status(got.cache)
        assert found["fwd"] == "bypass"
        assert found["detail"]
    # Even an answer that looks whole is not kept: nobody knows which question it answers.
    whole = b'{"choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"x"}}]}'
    for _ in range(2):
        teacher.script(Respond(200, {}, whole))
        assert "hit" not in (await send(proxy.address + CHAT, data=body)).cache
    assert teacher.count() == 4


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {**BASE, "messages": [{"role": ["a"], "content": {"b": 1}}]}),
        (CHAT, {**BASE, "messages": [1, None, "x"], "n": "two", "model": 7}),
        (CHAT, {**BASE, "response_format": [], "modalities": 3, "audio": 1, "logprobs": "yes"}),
        ("/v1/completions", {"model": [], "prompt": {}}),
        ("/v1/responses", {"model": "m", "input": [{"role": {}, "content": []}], "text": 3, "instructions": []}),
        ("/v1/messages", {"model": "m", "messages": [{"role": [], "content": [{}]}], "system": 4, "thinking": []}),
        ("/v1beta/models/g:generateContent", {"contents": [{"role": [], "parts": [1]}], "generationConfig": []}),
        ("/v1beta/models/g:generateContent", {"contents": 3, "systemInstruction": 4}),
        ("/v1/embeddings", {"model": {}, "input": None}),
        ("/v1/images/generations", {"model": [], "prompt": 1, "response_format": "b64_json"}),
        ("/v1/audio/speech", {"model": 1, "voice": [], "input": {}}),
    ],
)
async def test_wrong_types_are_the_providers_to_refuse(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, path: str, body: Any
) -> None:
    answer = b'{"error":{"message":"said by the provider"}}'
    teacher.script(Respond(422, {}, answer))
    got = await send(proxy.address + path, body)
    assert (got.status, got.body) == (422, answer)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"model": "m", "input": "x", "background": True}),
        ("/v1/responses", {"model": "m", "input": "x", "conversation": "c"}),
        ("/v1/responses", {"model": "m", "input": "x", "previous_response_id": "resp_unknown"}),
        ("/v1/responses", {"model": "m", "input": "x", "tools": [{"type": "web_search"}]}),
        ("/v1/responses", {"model": "m", "input": "x", "prompt": {"id": "p"}}),
        (CHAT, {**BASE, "web_search_options": {}}),
        ("/v1/messages", {**BASE, "max_tokens": 9, "tools": [{"type": "web_search_20250305", "name": "w"}]}),
        ("/v1/messages", {**BASE, "max_tokens": 9, "mcp_servers": [{"type": "url", "url": "https://x", "name": "n"}]}),
        (
            "/v1beta/models/g:generateContent",
            {"contents": [{"parts": [{"text": "x"}]}], "tools": [{"googleSearch": {}}]},
        ),
        ("/v1beta/models/g:generateContent", {"contents": [{"parts": [{"text": "x"}]}], "cachedContent": "c"}),
        ("/v1/images/generations", {"model": "dall-e-3", "prompt": "x", "response_format": "url"}),
        ("/v1/images/generations", {"model": "dall-e-3", "prompt": "x"}),
        ("/v1/fine_tuning/jobs", {"training_file": "f"}),
        ("/v1/assistants", {"model": "m"}),
        ("/v1/threads/t/runs", {"assistant_id": "a"}),
        ("/v1/batches", {"input_file_id": "f"}),
        ("/v1/images/edits", {"model": "m"}),
        ("/v1/anything/else", {"model": "m"}),
    ],
)
async def test_what_is_no_pure_question_is_never_stored(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, parse_cache_status: Any, path: str, body: Any
) -> None:
    for number in (1, 2):
        got = await send(proxy.address + path, body, headers={"anthropic-version": "2023-06-01"})
        assert "stored" not in parse_cache_status(got.cache)
        assert teacher.count() == number
    assert (proxy.data_dir / "api_recovery.jsonl").read_bytes() == b""


async def test_hosted_tools_are_stored_where_they_are_allowed(teacher: ScriptedTeacher, send: Any) -> None:
    body = {"model": "m", "input": "x", "tools": [{"type": "web_search"}]}
    async with run_proxy(teacher, allow_hosted_tools=True) as proxy:
        first = await send(f"{proxy.address}/v1/responses", body)
        again = await send(f"{proxy.address}/v1/responses", body)
        without = await send(f"{proxy.address}/v1/responses", {**body, "tools": []})
    assert first.body == again.body != without.body
    assert teacher.count() == 2


async def test_a_form_is_its_parts_whatever_the_boundary(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    def form(boundary: str, *parts: tuple[str, bytes]) -> tuple[bytes, dict[str, str]]:
        lines = b"".join(
            b"--%b\r\nContent-Disposition: form-data; name=%b\r\n\r\n%b\r\n"
            % (boundary.encode(), b'"%b"%b' % (name.encode(), b'; filename="a"' if name == "file" else b""), content)
            for name, content in parts
        )
        body = lines + b"--" + boundary.encode() + b"--\r\n"
        return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}

    url = f"{proxy.address}/v1/audio/transcriptions"
    sound = bytes(range(256)) * 4
    for boundary in ("one", "two"):
        body, headers = form(boundary, ("model", b"whisper-1"), ("file", sound))
        assert (await send(url, data=body, headers=headers)).status == 200
    assert teacher.count() == 1
    for parts in (
        (("model", b"whisper-2"), ("file", sound)),
        (("model", b"whisper-1"), ("file", sound + b"\0")),
        (("model", b"whisper-1"), ("file", sound), ("language", b"de")),
    ):
        body, headers = form("one", *parts)
        await send(url, data=body, headers=headers)
    assert teacher.count() == 4
    body, headers = form("one", ("model", b"whisper-1"), ("file", sound), ("stream", b"true"))
    events = await send(url, data=body, headers=headers)
    assert events.headers["Content-Type"].startswith("text/event-stream")
    assert (await send(url, data=body, headers=headers)).body == events.body
    assert teacher.count() == 5
    for broken in (body[:-9], b"no form at all"):
        for _ in range(2):
            await send(url, data=broken, headers=headers)
    assert teacher.count() == 9
