"""Recorded prompts answer through the official clients, where their text is all that is asked for."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

MODEL = "gpt-4.1"
Command = Callable[..., Awaitable[Any]]
Maker = Callable[..., Any]


@pytest.fixture
def recorded(tmp_path: Path, rows_file: Maker) -> Path:
    return rows_file(
        tmp_path / "rows.jsonl",
        {"prompt": "Why?", "response": "Because — ünï.", "model": MODEL},
        {"prompt": "Why?", "response": "Because.", "model": "claude-sonnet-5"},
        {"prompt": "Why?", "system": "Be brief.", "response": "So.", "model": MODEL},
    )


async def test_recorded_prompts_answer_in_both_forms(
    teacher: ScriptedTeacher, proxy: RunningProxy, clients_of: Callable[..., Any], recorded: Path, kdproxy: Command
) -> None:
    assert (await kdproxy("warm", recorded, "--data-dir", proxy.data_dir)).code == 0
    user: Any = [{"role": "user", "content": "Why?"}]
    async with clients_of(proxy) as ask:
        raw = await ask.openai.chat.completions.with_raw_response.create(model=MODEL, messages=user)
        answer = raw.parse()
        assert "prompt-match" in raw.headers["Cache-Status"]
        assert answer.choices[0].message.content == "Because — ünï."
        assert (answer.choices[0].finish_reason, answer.usage) == ("stop", None)
        stream = await ask.openai.chat.completions.create(model=MODEL, messages=user, stream=True)
        assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "Because — ünï."
        with_system: Any = [{"role": "system", "content": "Be brief."}, *user]
        answer = await ask.openai.chat.completions.create(model=MODEL, messages=with_system)
        assert answer.choices[0].message.content == "So."
        response = await ask.openai.responses.create(model=MODEL, input="Why?")
        assert response.output_text == "Because — ünï."
        params: Any = {"model": "claude-sonnet-5", "max_tokens": 100, "messages": user}
        message = await ask.anthropic.messages.create(**params)
        assert message.content[0].text == "Because."
        async with ask.anthropic.messages.stream(**params) as events:
            assert await events.get_final_text() == "Because."
    assert teacher.count() == 0


@pytest.mark.parametrize(
    "members",
    [
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"guided_json": {"type": "object"}},
        {"structured_outputs": {"choice": ["a", "b"]}},
        {"regex": "[0-9]+"},
        {"n": 2},
        {"stop": ["\n"]},
        {"stop": "END"},
        {"logit_bias": {"50256": -100}},
        {"bad_words": ["So"]},
        {"min_tokens": 100},
        {"stop_token_ids": [13]},
        {"prefix": "Be"},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"a_member_that_nobody_knows": 1},
        {"model": "gpt-4.1-mini"},
        {"messages": [{"role": "user", "content": "Why? "}]},
        {"messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why?"}]},
    ],
    ids=lambda members: next(iter(members)),
)
async def test_recorded_prompts_do_not_answer_where_more_is_asked(
    members: dict[str, Any],
    teacher: ScriptedTeacher,
    proxy: RunningProxy,
    send: Callable[..., Awaitable[Any]],
    recorded: Path,
    chat: Maker,
    warm_here: Command,
) -> None:
    await warm_here(proxy, recorded)
    assert "prompt-match" in (await send(f"{proxy.base_url}/chat/completions", chat("Why?"))).cache
    assert "fwd=miss" in (await send(f"{proxy.base_url}/chat/completions", {**chat("Why?"), **members})).cache
    assert teacher.count() == 1


@pytest.mark.parametrize(
    ("path", "members", "ignored"),
    [
        ("/v1/chat/completions", {}, None),
        ("/v1/chat/completions", {"stop": None, "logit_bias": {}, "tools": [], "user": "u", "stream": False}, None),
        ("/v1/chat/completions", {"n": 1, "response_format": {"type": "text"}, "tool_choice": "auto"}, None),
        ("/v1/chat/completions", {"temperature": 0, "max_tokens": 9, "seed": 0}, "temperature, max_tokens, seed"),
        ("/v1/chat/completions", {"top_p": 0.9, "max_completion_tokens": 9}, "top_p, max_completion_tokens"),
        ("/v1/responses", {"max_output_tokens": 9, "store": False}, "max_output_tokens"),
        ("/v1beta/models/gpt-4.1:generateContent", {"generationConfig": {"topK": 3, "seed": 1}}, "topK, seed"),
        ("/v1beta/models/gpt-4.1:generateContent", {"generationConfig": {"stopSequences": ["x"]}}, "not at all"),
        ("/v1/messages", {"max_tokens": 9, "stop_sequences": ["x"]}, "not at all"),
        ("/v1/messages", {"max_tokens": 9}, "max_tokens"),
    ],
)
async def test_what_a_recorded_prompt_does_not_answer_to_is_named(
    path: str,
    members: dict[str, Any],
    ignored: str | None,
    teacher: ScriptedTeacher,
    proxy: RunningProxy,
    send: Callable[..., Awaitable[Any]],
    recorded: Path,
    warm_here: Command,
    parse_cache_status: Callable[[str], Any],
) -> None:
    await warm_here(proxy, recorded)
    question: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}]}
    if path == "/v1/messages":
        question["model"] = "claude-sonnet-5"
    elif path == "/v1/responses":
        question = {"model": MODEL, "input": "Why?"}
    elif "generate" in path:
        question = {"contents": [{"parts": [{"text": "Why?"}]}]}
    headers = {"anthropic-version": "2023-06-01"} if path == "/v1/messages" else {}
    got = await send(proxy.address + path, {**question, **members}, headers=headers)
    said = parse_cache_status(got.cache)
    if ignored == "not at all":
        assert "hit" not in said
    else:
        assert (said["detail"], said.get("ignored"), teacher.count()) == ("prompt-match", ignored, 0)


async def test_an_exact_entry_wins_and_prompt_match_can_be_turned_off(
    teacher: ScriptedTeacher,
    send: Callable[..., Awaitable[Any]],
    tmp_path: Path,
    recorded: Path,
    chat: Maker,
    warm_here: Command,
) -> None:
    data = tmp_path / "data"
    async with run_proxy(teacher, data_dir=data, match_prompts=False) as proxy:
        await warm_here(proxy, recorded)
        bought = await send(f"{proxy.base_url}/chat/completions", chat("Why?"))
        assert "fwd=miss" in bought.cache
    async with run_proxy(teacher, data_dir=data) as proxy:
        again = await send(f"{proxy.base_url}/chat/completions", chat("Why?"))
        assert again.body == bought.body
        assert "prompt-match" not in again.cache
        other = await send(f"{proxy.base_url}/chat/completions", chat("Why?", seed=7))
        assert "prompt-match" in other.cache
    assert teacher.count() == 1
