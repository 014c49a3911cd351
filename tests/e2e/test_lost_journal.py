"""A journal that is deleted under a running proxy: what is said fits the cause, and what it says to do works."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.testing.proxy import run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher

CHAT = "/v1/chat/completions"


def question(number: int) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": f"why {number}?"}]}


@pytest.mark.asyncio
async def test_the_hint_for_a_deleted_journal_brings_back_what_was_paid_for(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any
) -> None:
    data = tmp_path / "data"
    async with run_proxy_process(teacher, data, environment={"KDPROXY_PATIENCE_SECONDS": "1"}) as proxy:
        stored = [await send(proxy.address + CHAT, question(number)) for number in range(3)]
        (data / "api_recovery.jsonl").unlink()
        delivered = await send(proxy.address + CHAT, question(3))
        assert "detail=not-stored" in delivered.cache
        refused = orjson.loads((await send(proxy.address + CHAT, question(4))).body)["error"]["message"]
        told = orjson.loads((await send(f"{proxy.address}/_kdproxy/healthz")).body)
        for said in (refused, told["reason"] + told["hint"]):
            assert "moved, replaced or deleted" in said
            assert "Free space" not in said
            assert "bought again" in said
        command = re.search(r"\(Linux: (cp /proc/\d+/fd/\d+) FILE\)", refused)
        if command is not None:  # another system has no such way
            subprocess.run([*command[1].split(), tmp_path / "saved"], check=True)
        await proxy.kill()
    if command is None:
        return
    shutil.move(tmp_path / "saved", data / "api_recovery.jsonl")
    bought = teacher.count()
    async with run_proxy_process(teacher, data) as proxy:
        again = [await send(proxy.address + CHAT, question(number)) for number in range(3)]
    assert [got.body for got in again] == [got.body for got in stored]
    assert teacher.count() == bought
