"""A disk that is full, under the real process: who waits is told why, and nothing that was paid is given up early."""

import asyncio
import signal
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.testing.proxy import ProxyProcess, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
LONG = "why " * 30_000


def question(number: int, words: str = LONG) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": words}], "seed": number}


async def health(send: Any, proxy: ProxyProcess) -> tuple[int, dict[str, Any]]:
    got = await send(f"{proxy.address}/_kdproxy/healthz")
    return got.status, orjson.loads(got.body)


async def test_who_waits_is_informed_of_the_disk(
    teacher: ScriptedTeacher, small_disk: Path, ballast: Any, send: Any
) -> None:
    data = small_disk / "data"
    async with run_proxy_process(teacher, data, environment={"KDPROXY_PATIENCE_SECONDS": "1"}) as proxy:
        stored = await send(proxy.address + CHAT, question(0))
        assert await health(send, proxy) == (200, {"status": "ok"})
        ballast.fill()
        delivered = await send(proxy.address + CHAT, question(1))
        assert (delivered.status, "detail=not-stored" in delivered.cache) == (200, True)
        status, told = await health(send, proxy)
        assert (status, told["status"], told["unwritten_answers"]) == (503, "degraded", 1)
        assert "No space left on device" in told["reason"]
        assert "Free space" in told["hint"]
        assert str(data) not in str(told)
        # Stored answers are served; what is new is not bought, and its client knows why.
        assert (await send(proxy.address + CHAT, question(0))).body == stored.body
        refused = await send(proxy.address + CHAT, question(2))
        assert (refused.status, refused.headers["x-should-retry"]) == (503, "true")
        error = orjson.loads(refused.body)["error"]
        assert error["code"] == "disk_refuses"
        assert "No space left on device" in error["message"]
        assert "Free space" in error["message"]
        assert "its turn" not in error["message"]
        assert teacher.count() == 2
        ballast.free()
        async with asyncio.timeout(10):
            while await health(send, proxy) != (200, {"status": "ok"}):
                await asyncio.sleep(0.05)
        assert (await send(proxy.address + CHAT, question(1))).body == delivered.body
        assert (await send(proxy.address + CHAT, question(2))).status == 200
    assert teacher.count() == 3


@pytest.mark.parametrize("streams", [False, True])
async def test_what_was_delivered_while_the_disk_refused_is_not_bought_again(
    teacher: ScriptedTeacher, small_disk: Path, ballast: Any, send: Any, streams: bool
) -> None:
    """Asked again meanwhile, it waits for the disk; by then it is stored."""
    data = small_disk / "data"
    async with run_proxy_process(teacher, data) as proxy:
        await send(proxy.address + CHAT, question(0))
        ballast.fill()
        asked = {**question(1), "stream": streams}
        delivered = await send(proxy.address + CHAT, asked)
        assert ("detail=live" if streams else "detail=not-stored") in delivered.cache
        again = asyncio.create_task(send(proxy.address + CHAT, asked))
        for _ in range(20):
            assert (await health(send, proxy))[0] == 503  # it is under way by now, and waits
        assert not again.done()
        ballast.free()
        assert (await again).body == delivered.body
    assert teacher.count() == 2


async def test_a_drain_lasts_till_the_disk_takes_what_was_paid(
    teacher: ScriptedTeacher, small_disk: Path, ballast: Any, send: Any
) -> None:
    data = small_disk / "data"
    async with run_proxy_process(teacher, data) as proxy:
        await send(proxy.address + CHAT, question(0))
        ballast.fill()
        delivered = await send(proxy.address + CHAT, question(1))
        assert "detail=not-stored" in delivered.cache
        proxy.send(signal.SIGTERM)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(proxy.process.wait(), 4)
        ballast.free()
        assert await proxy.wait() == 0
        _, err = await proxy.output()
    assert "1 answer could not be written to disk" in err
    assert "lost" not in err
    async with run_proxy_process(teacher, data) as proxy:
        assert (await send(proxy.address + CHAT, question(1))).body == delivered.body
    assert teacher.count() == 2


async def test_answers_that_are_given_up_are_counted(
    teacher: ScriptedTeacher, small_disk: Path, ballast: Any, send: Any
) -> None:
    async with run_proxy_process(teacher, small_disk / "data") as proxy:
        await send(proxy.address + CHAT, question(0))
        ballast.fill()
        assert "detail=not-stored" in (await send(proxy.address + CHAT, question(1))).cache
        proxy.send(signal.SIGTERM)
        async with asyncio.timeout(10):
            while b"shutting down" not in (await send(f"{proxy.address}/v1/files", {})).body:
                await asyncio.sleep(0.01)
        proxy.send(signal.SIGTERM)
        assert await proxy.wait() == 1
        _, err = await proxy.output()
    assert "1 answer could not be written to disk" in err
    assert "lost 1 answer not yet written to disk: the next run buys" in err


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("mode", ["replay", "cache"])
async def test_what_is_stored_is_served_by_a_start_on_a_full_disk(
    teacher: ScriptedTeacher, small_disk: Path, ballast: Any, send: Any, how: signal.Signals, mode: str
) -> None:
    """With another URL, too, which cannot be noted."""
    data = small_disk / "data"
    async with run_proxy_process([f"t={teacher.base_url}"], data) as proxy:
        bought = [await send(proxy.address + CHAT, question(number, "Why?")) for number in range(3)]
        proxy.send(how)
        await proxy.wait()
    ballast.fill()
    async with run_proxy_process(["t=http://127.0.0.1:9/v1"], data, "--mode", mode) as proxy:
        for number, each in enumerate(bought):
            found = await send(proxy.address + CHAT, question(number, "Why?"))
            assert (found.body, "hit" in found.cache) == (each.body, True)
        proxy.send(signal.SIGTERM)
        assert await proxy.wait() == 0
        _, err = await proxy.output()
    assert "Traceback" not in err
    ballast.free()
    async with run_proxy_process([f"t={teacher.base_url}"], data) as proxy:
        assert (await send(proxy.address + CHAT, question(0, "Why?"))).body == bought[0].body
    assert teacher.count() == 3
