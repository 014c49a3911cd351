"""Pipes that nobody reads, or that are closed, never stop the proxy."""

import asyncio
import fcntl
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from kdproxy.storage.lock import read_owner
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
PIPE_BYTES = 4_096


def ask(text: str) -> dict[str, Any]:
    return {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": text}]}


async def started(teacher: ScriptedTeacher, data_dir: Path, output: int) -> tuple[asyncio.subprocess.Process, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kdproxy", "serve", "--port", "0", "--data-dir", str(data_dir)),
        *("--upstream", teacher.base_url, "--config", os.devnull),
        stdout=output,
        stderr=output,
    )
    async with asyncio.timeout(30):
        while (owner := read_owner(data_dir)) is None or owner.pid != process.pid or owner.address is None:
            await asyncio.sleep(0.01)
    return process, owner.address


async def test_a_pipe_that_nobody_reads(teacher: ScriptedTeacher, send: Any, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    process, address = await started(teacher, tmp_path / "data", writing)
    os.close(writing)
    for number in range(60):  # 200 bytes of log each
        assert (await send(address + CHAT, ask(str(number)))).status == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 20) == 0
    assert PIPE_BYTES / 2 < len(os.read(reading, 1 << 20)) <= PIPE_BYTES
    os.close(reading)


async def test_a_pipe_that_is_read_late_gets_every_line(teacher: ScriptedTeacher, send: Any, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    process, address = await started(teacher, tmp_path / "data", writing)
    os.close(writing)
    for number in range(60):
        assert (await send(address + CHAT, ask(str(number)))).status == 200
    process.send_signal(signal.SIGTERM)
    text = await asyncio.to_thread(lambda: b"".join(iter(lambda: os.read(reading, 65_536), b"")))
    assert await asyncio.wait_for(process.wait(), 20) == 0
    os.close(reading)
    assert text.count(b"disposition=miss") == 60
    assert b"shutting down" in text


async def test_a_pipe_that_is_closed(teacher: ScriptedTeacher, send: Any, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    process, address = await started(teacher, tmp_path / "data", writing)
    os.close(writing)
    os.close(reading)
    for number in range(3):
        assert (await send(address + CHAT, ask(str(number)))).status == 200
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), 20) == 0
