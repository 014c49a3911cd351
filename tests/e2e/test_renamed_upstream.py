"""Answers whose upstream has another name now: the start says so, and what it says brings them back."""

import re
import signal
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio


async def start(upstream: str, data: Path, send: Any) -> tuple[Any, str]:
    """Ask the question of a proxy; return the answer and what the proxy said."""
    async with run_proxy_process([upstream], data) as proxy:
        got = await send(proxy.address + CHAT, ASK)
        proxy.send(signal.SIGTERM)
        await proxy.wait()
        _, err = await proxy.output()
    return got, err


@pytest.mark.parametrize("name", ["", "teacher="])
async def test_the_command_that_is_named_finds_the_answers_again(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any, name: str
) -> None:
    data, url = tmp_path / "data", teacher.base_url
    other = url.replace("127.0.0.1", "localhost")
    bought, err = await start(f"{name}{url}", data, send)
    assert "will not be found" not in err
    async with run_proxy_process([other], data, "--mode", "replay") as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 504
        proxy.send(signal.SIGTERM)
        await proxy.wait()
        _, err = await proxy.output()
    told = re.search(r"1 stored answer of upstream .*? will not be found.*? --upstream (\S+)", err)
    assert told is not None, err
    found, err = await start(told[1], data, send)
    assert found.body == bought.body
    assert "hit" in found.cache
    assert "will not be found" not in err
    assert teacher.count() == 1
