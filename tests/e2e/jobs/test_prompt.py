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
