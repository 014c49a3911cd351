"""Warm and export, with a proxy that owns the directory and without, and through a kill."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

MODEL = "gpt-4.1"
Command = Callable[..., Awaitable[Any]]
Maker = Callable[..., Any]


async def test_export_warm_export_gives_equal_files_whoever_owns_the_directory(
    teacher: ScriptedTeacher,
    send: Callable[..., Awaitable[Any]],
    tmp_path: Path,
    kdproxy: Command,
    rows_file: Maker,
    chat: Maker,
) -> None:
    data, copy = tmp_path / "data", tmp_path / "copy"
    exports: list[bytes] = []

    async def export(directory: Path, *flags: str) -> bytes:
        ran = await kdproxy("export", "--data-dir", directory, *flags)
        assert ran.code == 0, ran.err
        return ran.out

    async with run_proxy(teacher, data_dir=data) as proxy:
        url = proxy.base_url
        await send(f"{url}/chat/completions", chat("kept — ünï"))
        await send(f"{url}/chat/completions", chat("refreshed"))
        await send(f"{url}/chat/completions", chat("refreshed"), headers={"Cache-Control": "no-cache"})
        await send(f"{url}/chat/completions", chat("withdrawn"))
        await send(f"{url}/chat/completions", chat("streamed", stream=True))
        await send(f"{url}/audio/speech", {"model": "tts-1", "input": "say it", "voice": "alloy"})
        await send(f"{url}/models")
        file = rows_file(tmp_path / "rows.jsonl", {"prompt": "p", "response": "r", "model": MODEL})
        assert (await kdproxy("warm", file, "--data-dir", data)).code == 0
        assert (await kdproxy("forget", "--match", "^withdrawn$", "--yes", "--data-dir", data)).code == 0
        exports.append(await export(data))
        everything = await export(data, "--all")
    exports.append(await export(data))
    (tmp_path / "export.jsonl").write_bytes(exports[0])
    async with run_proxy(teacher, data_dir=copy):
        assert (await kdproxy("warm", tmp_path / "export.jsonl", "--data-dir", copy)).code == 0
        exports.append(await export(copy))
    exports.append(await export(copy))
    assert len(set(exports)) == 1
    assert exports[0].count(b"\n") == 6
    assert b"body_base64" in exports[0]
    # all lines: what was superseded and withdrawn stays so
    (tmp_path / "all.jsonl").write_bytes(everything)
    assert everything == (data / "api_recovery.jsonl").read_bytes()
    assert (await kdproxy("warm", tmp_path / "all.jsonl", "--data-dir", tmp_path / "third")).code == 0
    assert await export(tmp_path / "third") == exports[0]
    calls = teacher.count()
    async with run_proxy(teacher, data_dir=tmp_path / "third") as proxy:
        for text in ("kept — ünï", "refreshed"):
            assert "hit" in (await send(f"{proxy.base_url}/chat/completions", chat(text))).cache
        assert teacher.count() == calls


async def test_a_killed_warm_is_finished_by_the_next_one(
    tmp_path: Path, kdproxy: Command, start: Command, rows_file: Maker
) -> None:
    data, count = tmp_path / "data", 12_000
    file = rows_file(
        tmp_path / "rows.jsonl",
        *(
            {"prompt": f"{number % 9_000} " + "p" * 700, "response": f"{number}", "model": MODEL}
            for number in range(count)
        ),
    )
    process = await start("warm", file, "--data-dir", data)
    journal = data / "api_recovery.jsonl"
    async with asyncio.timeout(20):
        while not (journal.exists() and journal.stat().st_size > 1 << 20):
            assert process.returncode is None
            await asyncio.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    await process.communicate()
    ran = await kdproxy("warm", file, "--data-dir", data, "--json")
    assert ran.code == 0
    assert 0 < ran.json["already"] < count
    assert ran.json["already"] + ran.json["prompts"] == count
    assert journal.read_bytes().count(b"\n") == count
    stats = await kdproxy("stats", "--quick", "--json", "--data-dir", data)
    assert stats.json["prompts"] == count
    assert (await kdproxy("verify", "--data-dir", data)).code == 0


async def test_warm_at_start_answers_the_first_request(
    teacher: ScriptedTeacher, send: Callable[..., Awaitable[Any]], tmp_path: Path, rows_file: Maker, chat: Maker
) -> None:
    file = rows_file(tmp_path / "rows.jsonl", {"prompt": "why?", "response": "so", "model": MODEL}, {"bad": 1})
    async with run_proxy_process(teacher, tmp_path / "data", "--warm", str(file)) as process:
        answer = await send(f"{process.base_url}/chat/completions", chat("why?"))
        assert orjson.loads(answer.body)["choices"][0]["message"]["content"] == "so"
        process.send(signal.SIGTERM)
        assert await process.wait() == 0
        _, err = await process.output()
    assert f"{file}:2:" in err
    assert teacher.count() == 0


async def test_a_batch_answers_the_same_question_asked_live(
    teacher: ScriptedTeacher,
    proxy: RunningProxy,
    clients_of: Callable[..., Any],
    tmp_path: Path,
    kdproxy: Command,
    rows_file: Maker,
) -> None:
    messages: Any = [{"role": "user", "content": "Why — ünï?"}]
    params = {"model": "claude-sonnet-5", "max_tokens": 50, "messages": messages}
    reply = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "of batch"}, "finish_reason": "stop"}],
    }
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5",
        "content": [{"type": "text", "text": "of batch"}],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 3, "output_tokens": 2},
    }
    file = rows_file(
        tmp_path / "batch.jsonl",
        {"custom_id": "a", "result": {"type": "succeeded", "message": message}},
        {"custom_id": "a", "params": params},
        {
            "custom_id": "o",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": MODEL, "messages": messages},
        },
        {"custom_id": "o", "response": {"status_code": 200, "body": reply}, "error": None},
    )
    ran = await kdproxy("warm", file, "--data-dir", proxy.data_dir, "--json")
    assert ran.json["answers"] == 2, ran.err
    async with clients_of(proxy) as ask:
        chat_answer = await ask.openai.chat.completions.create(model=MODEL, messages=messages)
        assert chat_answer.choices[0].message.content == "of batch"
        message_answer = await ask.anthropic.messages.create(**params)
        assert message_answer.content[0].text == "of batch"
    assert teacher.count() == 0
