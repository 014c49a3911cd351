"""The two signals: the first finishes what was sent, the second gives it up and says what that costs."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import ProxyProcess, run_proxy_process
from kdproxy.testing.teacher import HoldAfter, RateLimited, ScriptedTeacher
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio


async def until_draining(send: Any, proxy: ProxyProcess) -> Any:
    """Return the health page once it tells of the end."""
    async with asyncio.timeout(10):
        while True:
            got = await send(f"{proxy.address}/_kdproxy/healthz")
            if b"draining" in got.body:
                return got
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_gives_up_and_says_what_it_costs(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any, number: signal.Signals
) -> None:
    teacher.script(RateLimited(retry_after=3600))
    async with run_proxy_process(teacher, tmp_path) as proxy:
        unsent = asyncio.create_task(send(proxy.address + CHAT, {**ASK, "model": "late"}))
        await teacher.wait_for_ended(1)
        teacher.hold()
        # A question, and a call that only passes: both were sent, both may be billed.
        waiting = [asyncio.create_task(send(proxy.address + path, ASK)) for path in (CHAT, "/v1/files")]
        await teacher.wait_for_calls(3)
        proxy.send(number)
        got = await until_draining(send, proxy)
        assert got.status == 503
        assert (await unsent).status in (429, 503)
        assert proxy.process.returncode is None
        proxy.send(number)
        assert await proxy.wait() == 1
        await asyncio.gather(*waiting, return_exceptions=True)
        _, err = await proxy.output()
    assert "draining 2 calls, up to 60 s; press Ctrl-C again to give up 2 calls already sent" in err
    assert "gave up 2 calls in flight: the provider may bill them" in err
    assert "Traceback" not in err


async def test_time_that_runs_out_says_the_same(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    teacher.hold()
    environment = {"KDPROXY_DRAIN_SECONDS": "0.3"}
    async with run_proxy_process(teacher, tmp_path, environment=environment) as proxy:
        waiting = asyncio.create_task(send(proxy.address + CHAT, ASK))
        await teacher.wait_for_calls(1)
        proxy.send(signal.SIGTERM)
        assert await proxy.wait() == 1
        await asyncio.gather(waiting, return_exceptions=True)
        _, err = await proxy.output()
    assert "draining 1 call, up to 0.3 s" in err
    assert "gave up 1 call in flight" in err


async def test_what_passes_through_is_finished_too(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    """It may have taken minutes and money as any other."""
    gate = asyncio.Event()
    hosted = {**ASK, "tools": [{"type": "web_search_preview"}], "stream": True}
    teacher.script(HoldAfter(events=1, gate=gate))
    async with run_proxy_process(teacher, tmp_path) as proxy:
        passing = asyncio.create_task(send(proxy.address + CHAT, hosted))
        await teacher.wait_for_calls(1)
        proxy.send(signal.SIGTERM)
        await until_draining(send, proxy)
        # Longer than a client may take to read what is left once all is over.
        await asyncio.sleep(6)
        gate.set()
        got = await passing
        assert got.body.endswith(b"data: [DONE]\n\n")
        assert "bypass" in got.cache
        assert await proxy.wait() == 0
        _, err = await proxy.output()
    assert "draining 1 call" in err
    assert "gave up" not in err


async def test_nothing_under_way_nothing_to_report(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    async with run_proxy_process(teacher, tmp_path) as proxy:
        await send(proxy.address + CHAT, ASK)
        proxy.send(signal.SIGTERM)
        assert await proxy.wait() == 0
        _, err = await proxy.output()
    assert "shutting down." in err
    assert "draining" not in err


ENDING = ["SIGHUP", "SIGQUIT", "SIGXCPU", "SIGPWR", "SIGALRM", "SIGPROF", "SIGRTMIN"]


@pytest.mark.parametrize("name", ENDING)
async def test_every_signal_that_ends_a_process_drains_it(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any, name: str
) -> None:
    teacher.hold()
    async with run_proxy_process(teacher, tmp_path) as proxy:
        waiting = asyncio.create_task(send(proxy.address + CHAT, ASK))
        await teacher.wait_for_calls(1)
        # systemd sends SIGHUP right after another one; it is not somebody who asks twice.
        for number in (getattr(signal, name), signal.SIGHUP):
            proxy.process.send_signal(number)
            await until_draining(send, proxy)
        teacher.release()
        assert (await waiting).status == 200
        assert await proxy.wait() == 0
        _, err = await proxy.output()
    assert "draining 1 call" in err


async def test_a_hangup_that_nohup_has_taken_out_ends_nothing(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a child inherits it, as nohup's does
    try:
        async with run_proxy_process(teacher, tmp_path) as proxy:
            proxy.send(signal.SIGHUP)
            assert (await send(proxy.address + CHAT, ASK)).status == 200
            assert "shutting down" not in proxy.said().decode()
            proxy.send(signal.SIGTERM)
            assert await proxy.wait() == 0
    finally:
        signal.signal(signal.SIGHUP, before)


async def test_a_notice_of_slurm_ends_nothing(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    async with run_proxy_process(teacher, tmp_path) as proxy:
        for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
            proxy.send(number)
            assert (await send(proxy.address + CHAT, ASK)).status == 200
        proxy.send(signal.SIGTERM)
        assert await proxy.wait() == 0
        _, err = await proxy.output()
    assert "signal=SIGUSR1" in err
    assert "signal=SIGUSR2" in err
