"""A directory of an earlier release: what version 1 of the key told apart by mistake is found while it is served."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from kdproxy.core import record
from kdproxy.core.models import Upstream
from kdproxy.providers.question import Asking, endpoint_named, v1_key
from kdproxy.testing.proxy import run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
REPLAY = {"Kdproxy-Mode": "replay"}


def asked(session: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "temperature": 0, "session_id": session}


def as_v1(line: dict[str, Any], upstream: str) -> bytes:
    """Write a line as an earlier release wrote it."""
    body = json.dumps(line["request"]).encode()
    asking = Asking(upstream=Upstream(name=upstream, url=""), path=CHAT, query="", headers={}, body=body)
    key = v1_key(endpoint_named("openai", "chat.completions"), asking)
    later = ("v", "origin", "seq", "sha256", "key_version", "store", "attempts", "billed", "tier", "finish", "price")
    members = {"v": 1, **{name: value for name, value in line.items() if name not in later}, "key": key}
    return record.seal(json.dumps(members, separators=(",", ":")).encode())


async def test_a_request_finds_what_only_the_old_key_distinguished(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any, journal_lines: Any
) -> None:
    async with run_proxy(f"t={teacher.base_url}", data_dir=tmp_path / "new") as proxy:
        bought = await send(proxy.address + CHAT, asked("a"))
    [line] = journal_lines(tmp_path / "new")
    data = tmp_path / "old"
    data.mkdir()
    (data / "directory.json").write_bytes(b'{"format":1,"upstreams":{}}')
    (data / "api_recovery.jsonl").write_bytes(as_v1(line, "t"))
    async with run_proxy(f"t={teacher.base_url}", data_dir=data) as proxy:
        assert (await send(proxy.address + CHAT, asked("a"))).body == bought.body, "by the old key, at once"
        async with asyncio.timeout(20):
            while (found := await send(proxy.address + CHAT, asked("b"), headers=REPLAY)).status != 200:
                await asyncio.sleep(0.01)
        assert found.body == bought.body
        assert [line["kind"] for line in journal_lines(data)] == ["answer", "seat"]
    assert teacher.count() == 1
    assert json.loads((data / "directory.json").read_bytes())["format"] == 2
    async with run_proxy(f"t={teacher.base_url}", data_dir=data) as proxy:
        again = await send(proxy.address + CHAT, asked("c"), headers={"Cache-Control": "no-cache"})
        assert again.body != bought.body
        assert (await send(proxy.address + CHAT, asked("a"))).body == again.body, "a refresh ends it under both keys"
