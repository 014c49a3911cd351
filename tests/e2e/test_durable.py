"""`kill -9` of the real process under load, again and again: what a client saw finish is there, and was paid once."""

import asyncio
import contextlib
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from kdproxy.testing.proxy import ProxyProcess, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
HEADERS = {"Authorization": "Bearer x"}
CALLERS = 12


def question(number: int) -> dict[str, Any]:
    """Every third is a stream; every fifth is large, so that a kill falls into its write."""
    words = "why " * (20_000 if number % 5 == 0 else 5)
    return {
        "model": "m",
        "messages": [{"role": "user", "content": words}],
        "seed": number,
        "stream": number % 3 == 0,
    }


@dataclass
class Run:
    """What the clients know: which questions were answered to their end, and how."""

    finished: dict[int, bytes] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)
    asked: set[int] = field(default_factory=set)
    lost_calls: int = 0
    """Calls that a kill may have cut off: each may be paid a second time."""
    next_number: int = 0

    def take(self) -> int:
        """Return an unfinished question, else a new one."""
        waiting = sorted(self.asked - set(self.finished) - self.open)
        number = waiting[0] if waiting else self.next_number
        if not waiting:
            self.next_number += 1
        self.open.add(number)
        self.asked.add(number)
        return number

    async def call(self, http: aiohttp.ClientSession, proxy: ProxyProcess) -> None:
        """Ask one question after another until the proxy dies."""
        while True:
            number = self.take()
            received = b""
            try:
                async with http.post(proxy.address + CHAT, json=question(number), headers=HEADERS) as response:
                    assert response.status == 200
                    async for chunk in response.content.iter_any():
                        received += chunk
                        # The last event was seen, though the connection may yet be cut behind it.
                        if received.endswith(b"data: [DONE]\n\n"):
                            self.finished[number] = received
                self.finished[number] = received
            except aiohttp.ClientError:
                return
            finally:
                self.open.discard(number)


async def one_life(run: Run, teacher: ScriptedTeacher, data_dir: Path, http: aiohttp.ClientSession, rng: Any) -> None:
    """Start, check what the last life finished, work, be killed."""
    async with run_proxy_process(teacher, data_dir, "--mode", "cache") as proxy:
        checked = sorted(run.finished)[-40:] + rng.sample(sorted(run.finished), min(10, len(run.finished)))
        await verify(run, checked, proxy, http)
        started = len(run.finished)
        callers = [asyncio.create_task(run.call(http, proxy)) for _ in range(CALLERS)]
        async with asyncio.timeout(20):
            while len(run.finished) < started + 5:
                await asyncio.sleep(0.005)
        await asyncio.sleep(rng.uniform(0, 0.08))
        run.lost_calls += len(run.open)
        await proxy.kill()
        await asyncio.gather(*callers)


async def verify(run: Run, numbers: list[int], proxy: ProxyProcess, http: aiohttp.ClientSession) -> None:
    for number in numbers:
        async with http.post(
            proxy.address + CHAT, json=question(number), headers={**HEADERS, "Kdproxy-Mode": "replay"}
        ) as response:
            assert response.status == 200, f"question {number} was answered and is lost"
            assert await response.read() == run.finished[number], f"question {number}"


@pytest.mark.parametrize("kills", [20, pytest.param(200, marks=pytest.mark.faults)])
async def test_kill_9_under_load(teacher: ScriptedTeacher, tmp_path: Path, http: Any, kills: int) -> None:
    run, rng = Run(), random.Random(kills)
    teacher.latency_seconds = 0.003
    for _ in range(kills):
        await one_life(run, teacher, tmp_path, http, rng)
    async with run_proxy_process(teacher, tmp_path) as proxy:
        await verify(run, sorted(run.finished), proxy, http)
        proxy.send(signal.SIGTERM)
        assert await proxy.wait() == 0
        _, err = await proxy.output()
    assert "error" not in err.lower(), err
    assert len(run.finished) >= 5 * kills
    # Never twice: only what was in flight at a kill may have been paid again.
    assert teacher.count() <= len(run.asked) + run.lost_calls


async def test_a_torn_last_line_is_cut_and_reported(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    async with run_proxy_process(teacher, tmp_path) as proxy:
        kept = [await send(proxy.address + CHAT, question(number)) for number in range(4)]
        await proxy.kill()
    journal = tmp_path / "api_recovery.jsonl"
    whole = journal.read_bytes()
    last = whole.rstrip(b"\n").rfind(b"\n") + 1
    for cut in (last + 1, (last + len(whole)) // 2, len(whole) - 1):
        journal.write_bytes(whole[:cut])
        async with run_proxy_process(teacher, tmp_path) as proxy:
            for number in range(3):
                got = await send(proxy.address + CHAT, question(number), headers={"Kdproxy-Mode": "replay"})
                assert got.body == kept[number].body
            lost = await send(proxy.address + CHAT, question(3), headers={"Kdproxy-Mode": "replay"})
            assert lost.status == 504
            await proxy.kill()
            _, err = await proxy.output()
        assert "unfinished last line" in err
        assert f"bytes={cut - last}" in err
        assert journal.read_bytes() == whole[:last]
    async with run_proxy_process(teacher, tmp_path) as proxy:
        again = await send(proxy.address + CHAT, question(3))
        assert (await send(proxy.address + CHAT, question(3))).body == again.body
    assert teacher.count() == 5


async def test_the_index_is_made_anew_from_the_journal(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    async with run_proxy_process(teacher, tmp_path) as proxy:
        kept = [await send(proxy.address + CHAT, question(number)) for number in range(6)]
        await proxy.kill()
    for file in (tmp_path / "index").iterdir():
        file.unlink()
    async with run_proxy_process(teacher, tmp_path) as proxy:
        for number, answer in enumerate(kept):
            got = await send(proxy.address + CHAT, question(number))
            assert got.body == answer.body
    assert teacher.count() == 6


async def test_sealed_segments_answer_too(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    config = tmp_path / "c.toml"
    config.write_text("segment_bytes = 8192\n")
    data = tmp_path / "data"
    async with run_proxy_process(teacher, data, "--config", str(config)) as proxy:
        kept = [await send(proxy.address + CHAT, question(number)) for number in range(1, 30)]
        await proxy.kill()
    assert len(list(data.glob("api_recovery.[0-9]*.jsonl"))) >= 3
    async with run_proxy_process(teacher, data, "--config", str(config)) as proxy:
        for number, answer in enumerate(kept, start=1):
            assert (await send(proxy.address + CHAT, question(number))).body == answer.body
    assert teacher.count() == 29


async def test_an_answer_is_on_disk_before_its_end_is_reported(
    teacher: ScriptedTeacher, tmp_path: Path, http: Any
) -> None:
    """Killed in the very moment in which the client has its answer."""
    for number in range(1, 7):
        async with run_proxy_process(teacher, tmp_path) as proxy:
            body = b""
            with contextlib.suppress(aiohttp.ClientError):  # cut, but behind the answer's own end
                async with http.post(proxy.address + CHAT, json=question(number), headers=HEADERS) as response:
                    async for chunk in response.content.iter_any():
                        body += chunk
                        if body.endswith(b"[DONE]\n\n" if number % 3 == 0 else b"\n}"):
                            proxy.process.kill()
            await proxy.kill()
        text = (tmp_path / "api_recovery.jsonl").read_bytes()
        assert text.count(b"\n") == 2 * number, "each life's first line, and its answer"
