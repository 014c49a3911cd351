"""Endpoints beside chat: bought once, and kept only where the answer is as many rows as were asked for, none empty."""

import json
from typing import Any

import pytest

from kdproxy.testing.proxy import RunningProxy
from kdproxy.testing.teacher import Respond, ScriptedTeacher

pytestmark = pytest.mark.asyncio

EMBED, BATCH, COUNT = (f"/v1beta/models/e:{name}" for name in ("embedContent", "batchEmbedContents", "countTokens"))
INTERACTION = {"model": "g", "input": "Why?", "store": False}
SAID = {"type": "model_output", "content": [{"type": "text", "text": "So."}]}
COMPACTED = {"id": "resp_1", "object": "response.compaction", "output": [{"type": "compaction"}], "usage": {}}

KEPT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("/v1/responses/compact", {"model": "m", "input": "x"}, COMPACTED),
    (
        "/v1/responses/input_tokens",
        {"model": "m", "input": "x"},
        {"object": "response.input_tokens", "input_tokens": 1},
    ),
    (EMBED, {"content": {"parts": [{"text": "x"}]}}, {"embedding": {"values": [0.5, 0]}}),
    (BATCH, {"requests": [{}, {}]}, {"embeddings": [{"values": [1.0]}, {"values": [0.5]}]}),
    (COUNT, {"contents": [{"parts": [{"text": "x"}]}]}, {"totalTokens": 3}),
    ("/v1beta/interactions", INTERACTION, {"id": "i", "status": "completed", "steps": [SAID]}),
    ("/v1beta/interactions", INTERACTION, {"id": "i", "status": "requires_action", "outputs": [SAID]}),
    (
        "/v1/rerank",
        {"query": "q", "documents": ["a", "b"]},
        {"results": [{"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": 0}]},
    ),
    (
        "/rerank",
        {"query": "q", "documents": ["a", "b"], "top_n": 1},
        {"results": [{"index": 1, "relevance_score": 0.5}]},
    ),
    ("/rerank", {"query": "q", "documents": ["a"], "top_n": 0}, {"data": [{"index": 0, "relevance_score": 0.5}]}),
    ("/score", {"text_1": "a", "text_2": ["b", "c"]}, {"data": [{"index": 0, "score": 1}, {"index": 1, "score": 0.0}]}),
    ("/v1/score", {"queries": "a", "documents": ["b"]}, {"data": [{"index": 0, "score": 1}]}),
    ("/v1/score", {"query": "a", "items": ["b", "c"]}, {"scores": [[0.5, 0.5], [0.1, 0.9]]}),
    ("/pooling", {"input": "a"}, {"data": [{"index": 0, "data": [[0.1], [0.2]]}]}),
    ("/pooling", {"messages": [], "encoding_format": "base64"}, {"data": [{"index": 0, "data": "AAAA"}]}),
    (
        "/classify",
        {"input": ["a", "b"]},
        {"data": [{"index": 0, "label": "x", "probs": [0, 1]}, {"index": 1, "label": "y", "probs": [1, 0]}]},
    ),
    ("/tokenize", {"prompt": "a"}, {"count": 2, "tokens": [1, 2], "max_model_len": 9}),
    ("/tokenize", {"content": ""}, {"tokens": []}),
]


@pytest.mark.parametrize(("path", "asked", "answer"), KEPT, ids=str)
async def test_a_whole_answer_is_bought_once(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, path: str, asked: dict[str, Any], answer: dict[str, Any]
) -> None:
    teacher.script(Respond(200, {"Content-Type": "application/json"}, json.dumps(answer).encode()))
    first = await send(proxy.address + path, asked)
    again = await send(proxy.address + path, asked)
    assert (first.status, again.body, teacher.count()) == (200, first.body, 1)
    assert "hit" in again.cache


BROKEN: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("/v1/responses/compact", {"model": "m", "input": "x"}, {**COMPACTED, "output": []}),
    (
        "/v1/responses/compact",
        {"model": "m", "input": "x"},
        {"object": "response", "status": "completed", "output": [{}]},
    ),
    ("/v1/responses/input_tokens", {"model": "m", "input": "x"}, {"object": "response.input_tokens"}),
    (EMBED, {"content": {}}, {"embedding": {"values": []}}),
    (EMBED, {"content": {}}, {"embedding": {"values": [0.1, None]}}),
    (BATCH, {"requests": [{}, {}]}, {"embeddings": [{"values": [1.0]}]}),
    (COUNT, {"contents": []}, {"totalTokens": "3"}),
    ("/v1beta/interactions", INTERACTION, {"id": "i", "status": "failed", "steps": [SAID]}),
    ("/v1beta/interactions", INTERACTION, {"id": "i", "status": "requires_continuation", "steps": [SAID]}),
    ("/v1beta/interactions", INTERACTION, {"id": "i", "status": "in_progress"}),
    ("/v1beta/interactions", INTERACTION, {"id": "i", "status": "completed", "steps": []}),
    ("/rerank", {"query": "q", "documents": ["a", "b"]}, {"results": [{"index": 1, "relevance_score": 0.5}]}),
    ("/rerank", {"query": "q", "documents": ["a", "b"]}, {"results": [{"index": 1, "relevance_score": 1}] * 2}),
    ("/rerank", {"query": "q", "documents": ["a"]}, {"results": [{"index": 0, "relevance_score": None}]}),
    ("/score", {"text_1": "a", "text_2": ["b", "c"]}, {"data": [{"index": 0, "score": 1}]}),
    ("/pooling", {"input": "a"}, {"data": [{"index": 0, "data": []}]}),
    ("/classify", {"input": ["a"]}, {"data": [{"index": 0, "label": "x", "probs": []}]}),
    ("/tokenize", {"prompt": "a"}, {"count": 3, "tokens": [1, 2]}),
    ("/tokenize", {"prompt": "a"}, {"detail": "Not Found"}),
    ("/rerank", {"query": "q", "documents": ["a"]}, {"object": "error", "message": "no"}),
]


@pytest.mark.parametrize(("path", "asked", "answer"), BROKEN, ids=str)
async def test_what_is_no_whole_answer_is_delivered_and_not_kept(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, path: str, asked: dict[str, Any], answer: dict[str, Any]
) -> None:
    body = json.dumps(answer).encode()
    step = Respond(200, {"Content-Type": "application/json"}, body)
    teacher.script(step, step, step)  # it may have been billed: bought two more times
    got = await send(proxy.address + path, asked)
    assert "stored" not in got.cache
    assert "hit" not in got.cache
    assert b'"kind":"answer"' not in (proxy.data_dir / "api_recovery.jsonl").read_bytes()


@pytest.mark.parametrize(
    "more",
    [
        {"store": True},
        {"store": None},
        {"previous_interaction_id": "i"},
        {"background": True},
        {"agent": "deep-research"},
        {"environment": {"id": "e"}},
        {"cached_content": "c"},
        {"continuation_token": "t"},
        {"tools": [{"type": "google_search"}]},
        {"tools": [{"type": "mcp_server", "url": "https://x"}]},
    ],
    ids=str,
)
async def test_an_interaction_that_the_provider_holds_passes(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any, more: dict[str, Any]
) -> None:
    answer = json.dumps({"id": "i", "status": "completed", "steps": [SAID]}).encode()
    for number in (1, 2):
        teacher.script(Respond(200, {"Content-Type": "application/json"}, answer))
        assert "fwd=bypass" in (await send(f"{proxy.address}/v1beta/interactions", {**INTERACTION, **more})).cache
        assert teacher.count() == number


async def test_a_streamed_interaction_is_kept_once_its_status_is_good(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    def stream(status: str, *, event: str = "interaction.completed") -> bytes:
        events = [
            {"event_type": "interaction.created", "interaction": {"status": "in_progress"}},
            {"event_type": "step.delta", "delta": {"type": "text", "text": "So."}},
            {"event_type": event, "interaction": {"status": status, "usage": {"total_output_tokens": 2}}},
        ]
        return b"".join(b"data: %b\n\n" % json.dumps(each).encode() for each in events)

    body = {**INTERACTION, "stream": True}
    for whole in (stream("failed"), stream("completed", event="interaction.status_update"), stream("completed")):
        teacher.script(Respond(200, {"Content-Type": "text/event-stream"}, whole))
        assert (await send(f"{proxy.address}/v1beta/interactions", body)).body == whole
    again = await send(f"{proxy.address}/v1beta/interactions", {**body, "labels": {"team": "a"}})
    assert (again.body, teacher.count()) == (stream("completed"), 3)


async def test_an_edited_image_is_bought_once_whatever_the_boundary(
    teacher: ScriptedTeacher, proxy: RunningProxy, send: Any
) -> None:
    def form(boundary: str, *more: tuple[str, str]) -> tuple[bytes, dict[str, str]]:
        fields = [("model", "gpt-image-1"), ("prompt", "A hat"), ("n", "2"), *more]
        lines = "".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
            for name, value in fields
        )
        image = f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n\x89PNG\r\n'
        body = (lines + image).encode("latin-1") + f"--{boundary}--\r\n".encode()
        return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}

    answer = {"data": [{"b64_json": "AAAA"}, {"b64_json": "BBBB"}]}
    teacher.script(Respond(200, {"Content-Type": "application/json"}, json.dumps(answer).encode()))
    for boundary, more in (("one", ()), ("two", (("user", "u"),))):
        body, headers = form(boundary, *more)
        assert (await send(f"{proxy.address}/v1/images/edits", data=body, headers=headers)).status == 200
    assert teacher.count() == 1
    teacher.script(
        Respond(200, {"Content-Type": "application/json"}, json.dumps({"data": answer["data"][:1]}).encode())
    )
    body, headers = form("one", ("quality", "high"))
    assert "stored" not in (await send(f"{proxy.address}/v1/images/edits", data=body, headers=headers)).cache, (
        "one of two"
    )
