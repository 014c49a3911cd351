"""Batch jobs become the entries that the same questions make when they are asked live."""

import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from kdproxy.core.models import Entry, Form
from kdproxy.core.record import decode
from kdproxy.ops.export import ExportArguments
from kdproxy.ops.warm.warm import WarmArguments

CHAT = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "Why?"}], "seed": 12345678901234567890123}
REPLY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_700_000_000,
    "model": "gpt-4.1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "So."}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2},
}
PARAMS = {"model": "claude-sonnet-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Why?"}]}
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-sonnet-5",
    "content": [{"type": "text", "text": "So."}],
    "stop_reason": "end_turn",
    "usage": {"input_tokens": 3, "output_tokens": 2},
}


def asked(custom_id: str, body: Any, url: str = "/v1/chat/completions") -> bytes:
    head = orjson.dumps({"custom_id": custom_id, "method": "POST", "url": url})[:-1]
    # 23 digits: json, not orjson, writes them as they are
    return head + b',"body":' + json.dumps(body).encode() + b"}\n"


def answered(custom_id: str, body: Any, status: int = 200) -> dict[str, Any]:
    response = {"status_code": status, "request_id": "req_1", "body": body}
    return {"id": "batch_req_1", "custom_id": custom_id, "response": response, "error": None}


def entries(shelf: Any) -> list[Entry]:
    found = [decode(line) for line in shelf.run(ExportArguments()).lines]
    assert all(isinstance(record, Entry) for record in found)
    return found


@pytest.mark.parametrize("names", [("input", "output"), ("output", "input")])
def test_a_pair_is_joined_in_any_order(names: tuple[str, ...], shelf: Any, write: Callable[..., str]) -> None:
    files = {"input": write("input", asked("1", CHAT)), "output": write("output", answered("1", REPLY))}
    result = shelf.run(WarmArguments(files=tuple(files[name] for name in names))).result
    assert (result["answers"], result["bad"], result["unpaired"]) == (1, 0, 0)
    (entry,) = entries(shelf)
    assert (entry.upstream, entry.endpoint, entry.model) == ("openai", "chat.completions", "gpt-4.1")
    assert (entry.answer.form, entry.created_at) == (Form.JSON, 1_700_000_000.0)
    assert orjson.loads(entry.answer.body) == REPLY
    assert entry.answer.usage is not None
    assert entry.answer.usage.input_tokens == 3
    assert b"12345678901234567890123" in (entry.request or b"")


def test_a_pair_in_one_file_twice_is_one_answer(shelf: Any, write: Callable[..., str]) -> None:
    file = write("both", asked("1", CHAT), answered("1", REPLY))
    assert shelf.run(WarmArguments(files=(file, file))).result["answers"] == 1
    assert shelf.run(WarmArguments(files=(file,))).result["already"] == 1


@pytest.mark.parametrize(
    ("url", "body", "reply", "endpoint"),
    [
        ("/v1/embeddings", {"model": "e", "input": "x"}, {"data": [{"embedding": [0.1, 0.25]}]}, "embeddings"),
        (
            "/v1/responses",
            {"model": "gpt-4.1", "input": "x"},
            {"id": "resp_1", "status": "completed", "output": [{"content": [{"text": "y"}]}]},
            "responses",
        ),
        (
            "/v1/completions",
            {"model": "gpt-3.5-turbo-instruct", "prompt": "x"},
            {"choices": [{"text": "y", "finish_reason": "stop"}]},
            "completions",
        ),
    ],
)
def test_other_endpoints_are_known(
    url: str, body: Any, reply: Any, endpoint: str, shelf: Any, write: Callable[..., str]
) -> None:
    shelf.run(WarmArguments(files=(write("both", asked("1", body, url), answered("1", reply)),)))
    (entry,) = entries(shelf)
    assert entry.endpoint == endpoint


def test_anthropic_results_are_paired_with_their_requests(shelf: Any, write: Callable[..., str]) -> None:
    file = write(
        "batch",
        {"custom_id": "1", "params": PARAMS},
        {"custom_id": "2", "params": {**PARAMS, "max_tokens": 60}},
        {"custom_id": "1", "result": {"type": "succeeded", "message": MESSAGE}},
        {
            "custom_id": "2",
            "result": {
                "type": "errored",
                "error": {"type": "error", "error": {"type": "invalid_request_error", "message": "no such model"}},
            },
        },
    )
    outcome = shelf.run(WarmArguments(files=(file,)))
    assert (outcome.result["answers"], outcome.result["failed"], outcome.result["bad"]) == (1, 1, 0)
    assert "no such model" in outcome.findings[0]["reason"]
    (entry,) = entries(shelf)
    assert (entry.upstream, entry.endpoint) == ("anthropic", "messages")
    assert entry.request_headers == (("anthropic-version", "2026-10-21"),)


@pytest.mark.parametrize(
    ("members", "given", "version"),
    [({}, None, "2026-10-21"), ({"temperature": 0}, None, "2023-06-01"), ({}, "2023-06-01", "2023-06-01")],
)
def test_the_version_that_a_batch_does_not_name_is_found_or_given(
    members: Any, given: str | None, version: str, shelf: Any, write: Callable[..., str]
) -> None:
    file = write(
        "batch",
        {"custom_id": "1", "params": {**PARAMS, **members}},
        {"custom_id": "1", "result": {"type": "succeeded", "message": MESSAGE}},
    )
    shelf.run(WarmArguments(files=(file,), anthropic_version=given))
    (entry,) = entries(shelf)
    assert entry.request_headers == (("anthropic-version", version),)


@pytest.mark.parametrize(
    ("rows", "kind", "reason"),
    [
        ([asked("1", CHAT)], "unpaired", "no output line"),
        ([answered("1", REPLY)], "unpaired", "no input line"),
        ([asked("1", CHAT), answered("1", {"error": {"message": "bad key"}}, 401)], "failed", "bad key"),
        ([asked("1", CHAT), {"custom_id": "1", "response": None, "error": {"message": "late"}}], "failed", "late"),
        ([asked("1", CHAT), asked("1", {**CHAT, "seed": 1}), answered("1", REPLY)], "bad", "several lines"),
        ([asked("1", CHAT), answered("1", {**REPLY, "choices": []})], "bad", "not whole"),
        ([asked("1", CHAT, "/v1/files"), answered("1", REPLY)], "bad", "not cached"),
        ([asked("1", CHAT, "https://elsewhere/"), answered("1", REPLY)], "bad", "plain absolute path"),
        (
            [asked("1", {**CHAT, "tools": [{"type": "web_search"}]}), answered("1", REPLY)],
            "bad",
            "not known to be a pure question",
        ),
        (
            [b'{"custom_id":"1","url":"/v1/chat/completions","body":{"a":1,"a":2}}\n', answered("1", REPLY)],
            "bad",
            "no single meaning",
        ),
    ],
)
def test_what_cannot_be_used_is_distinguished(
    rows: list[Any], kind: str, reason: str, shelf: Any, write: Callable[..., str]
) -> None:
    outcome = shelf.run(WarmArguments(files=(write("batch", *rows),)))
    assert (outcome.result[kind], outcome.result["answers"]) == (1, 0)
    (finding,) = outcome.findings
    assert finding["kind"] == kind
    assert reason in finding["reason"]


def test_the_upstream_can_be_named(shelf: Any, write: Callable[..., str]) -> None:
    arguments = WarmArguments(
        files=(write("both", asked("1", CHAT), answered("1", REPLY)),),
        upstream_name="local",
        upstream_url="http://127.0.0.1:9/v1",
    )
    shelf.run(arguments)
    (entry,) = entries(shelf)
    assert (entry.upstream, entry.path) == ("local", "/v1/chat/completions")


def test_strict_goes_past_failed_requests_and_stops_at_unpaired_ones(shelf: Any, write: Callable[..., str]) -> None:
    failed = write("failed", asked("1", CHAT), answered("1", None, 500), asked("2", CHAT), answered("2", REPLY))
    assert shelf.run(WarmArguments(files=(failed,), strict=True)).result["answers"] == 1
    assert shelf.run(WarmArguments(files=(write("one", asked("3", CHAT)),), strict=True)).result["is_stopped"]


def test_what_failed_and_was_asked_again_is_no_other_answer(shelf: Any, write: Callable[..., str]) -> None:
    failed = answered("1", {"error": {"message": "overloaded"}}, status=500)
    for outputs in ([failed, answered("1", REPLY)], [answered("1", REPLY), failed], [failed, failed]):
        result = shelf.run(WarmArguments(files=(write("input", asked("1", CHAT)), write("output", *outputs)))).result
        assert result["bad"] == 0
    assert len(entries(shelf)) == 1


def test_nan_among_the_log_probabilities_of_an_answer(shelf: Any, write: Callable[..., str]) -> None:
    line = orjson.dumps(answered("1", REPLY)).replace(b'"finish_reason"', b'"logprobs":{"x":-Infinity},"finish_reason"')
    result = shelf.run(WarmArguments(files=(write("input", asked("1", CHAT)), write("output", line + b"\n")))).result
    assert (result["answers"], result["bad"]) == (1, 0)
