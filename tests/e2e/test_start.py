"""`kdproxy serve` as a process: what it says when it starts, when it cannot, and how it goes."""

import asyncio
import re
import signal
import socket
import stat
import time
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import run_proxy_process, start_serve
from kdproxy.testing.teacher import HoldAfter, RateLimited, ScriptedTeacher
from tests.wire.asks import ASK, CHAT

pytestmark = pytest.mark.asyncio


async def fail(*arguments: str, data_dir: Path, environment: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run a serve that cannot start, and return its exit code and output."""
    process = await start_serve("http://127.0.0.1:9", data_dir, *arguments, environment=environment)
    try:
        async with asyncio.timeout(20):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    assert "Traceback" not in err.decode()
    return process.returncode, out.decode(), err.decode()


async def test_it_prints_the_lines_to_export(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    async with run_proxy_process(teacher, tmp_path / "data") as proxy:
        assert (await send(f"{proxy.address}/_kdproxy/healthz")).status == 200
        proxy.send(signal.SIGTERM)
        assert await proxy.wait() == 0
        out, _ = await proxy.output()
    assert out.splitlines() == [
        f"export OPENAI_BASE_URL={proxy.address}/v1",
        f"export ANTHROPIC_BASE_URL={proxy.address}",
        f"export GOOGLE_GEMINI_BASE_URL={proxy.address}",
    ]


async def test_how_much_is_stored_is_reported_where_an_unmounted_disk_would_else_be_taken_for_a_new_one(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any
) -> None:
    said = []
    for _ in range(2):
        async with run_proxy_process(teacher, tmp_path / "data") as proxy:
            await send(proxy.address + CHAT, ASK)
            proxy.send(signal.SIGTERM)
            await proxy.wait()
            said.append((await proxy.output())[1])
    assert f"no answers yet in {tmp_path / 'data'}" in said[0]
    assert f"1 answer in {tmp_path / 'data'}" in said[1]


async def test_the_data_directory_is_private_and_ignored(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    async with run_proxy_process(teacher, tmp_path / "a" / "data") as proxy:
        await send(proxy.address + CHAT, ASK)
    data = tmp_path / "a" / "data"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700
    assert (data / ".gitignore").read_text() == "*\n"
    for file in data.rglob("*"):
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file


async def test_a_second_one_learns_at_once_who_owns_the_directory(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any
) -> None:
    async with run_proxy_process(teacher, tmp_path) as proxy:
        started = time.monotonic()
        code, _, err = await fail(data_dir=tmp_path)
        elapsed = time.monotonic() - started
        assert code == 1
        assert f"process {proxy.pid} on {socket.gethostname()}" in err
        assert proxy.address in err
        assert (await send(proxy.address + CHAT, ASK)).status == 200
    # Most of it is Python's own start; on a busy machine that alone takes longer than the promised second.
    assert elapsed < 5


async def test_a_dead_owner_does_not_stand_in_the_way(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    async with run_proxy_process(teacher, tmp_path) as proxy:
        first = await send(proxy.address + CHAT, ASK)
        await proxy.kill()
    async with run_proxy_process(teacher, tmp_path) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).body == first.body


async def test_a_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = await fail("--port", str(port), data_dir=tmp_path)
    assert code == 1
    assert f"127.0.0.1:{port}" in err
    assert "--port" in err
    code, _, err = await fail("--host", "192.0.2.1", data_dir=tmp_path, environment={"KDPROXY_TOKEN": "t" * 20})
    assert (code, "192.0.2.1" in err) == (1, True)


async def test_an_unwritable_directory(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a directory")
    for data_dir in (blocked, blocked / "below", Path("/proc/kdproxy")):
        code, _, err = await fail(data_dir=data_dir)
        assert code == 1
        assert str(data_dir) in err
        assert "--data-dir" in err
    assert blocked.read_text() == "not a directory"


async def test_all_mistakes_of_a_configuration_are_reported_at_once(tmp_path: Path) -> None:
    config = tmp_path / "kdproxy.toml"
    config.write_text('prot = 8400\nmode = "fast"\n[upstreams.teacher]\nurl = "ftp://teacher"\n')
    data_dir = tmp_path / "data"
    process = await start_serve([], data_dir, "--config", str(config), environment={"KDPROXY_READ_SECONDS": "soon"})
    _, err = await process.communicate()
    assert process.returncode == 2
    text = err.decode()
    assert "4 problems" in text
    for part in ("prot", "did you mean port", "mode", "cache, replay", "upstream", "https://host/v1", "READ_SECONDS"):
        assert part in text, part
    assert "Traceback" not in text
    assert not data_dir.exists()


async def test_a_price_file_with_mistakes_is_reported_and_nothing_else(tmp_path: Path) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text("cheap = true\n")
    environment = {"KDPROXY_PRICES": str(prices), "PYTHONWARNINGS": "default::ResourceWarning"}
    code, _, err = await fail(data_dir=tmp_path / "data", environment=environment)
    assert code == 2
    assert "unknown table 'cheap'" in err
    assert "nclosed" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--port", "99999"), "65535"),
        (("--port", "x"), "port"),
        (("--mode", "fast"), "cache, replay"),
        (("--upstream", "http://one", "--upstream", "http://one"), "two upstreams"),
        (("--upstream", "a b=http://one"), "name"),
        (("--upstream", "https://me:secret-canary@host/v1"), "no credentials"),
        (("--upstream", "https://host/v1?key=secret-canary"), "no query"),
        (("--upstream", "http://a..b/v1"), "https://host/v1"),
        (("--upstream", f"http://{'a' * 64}.example/v1"), "https://host/v1"),
        (("--host", "0.0.0.0"), "token"),
        (("--host", "a..b"), "host name"),
        (("--config", "/nonexistent.toml"), "cannot be read"),
        (("--nonsense",), "--nonsense"),
    ],
    ids=str,
)
async def test_a_wrong_flag_ends_with_two(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    code, out, err = await fail(*arguments, data_dir=tmp_path / "data")
    assert code == 2
    assert words in err
    assert "secret-canary" not in out + err
    assert not (tmp_path / "data").exists()


async def test_a_changed_upstream_url_is_warned_of(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    async with run_proxy_process([f"t={teacher.base_url}"], tmp_path) as proxy:
        for seed in range(3):
            await send(proxy.address + CHAT, {**ASK, "seed": seed})
        await send(proxy.address + CHAT, {**ASK, "stream": True})
    for url, is_warned in (("http://127.0.0.1:9/v1", True), ("http://127.0.0.1:9/v1", False)):
        async with run_proxy_process([f"t={url}"], tmp_path) as proxy:
            assert (await send(proxy.address + CHAT, {**ASK, "seed": 0})).status == 200
            proxy.send(signal.SIGTERM)
            await proxy.wait()
            _, err = await proxy.output()
        assert ("'t' was" in err) == is_warned, err
        if is_warned:
            assert re.search(r"\b4 (stored )?answers", err), err
            assert teacher.base_url in err
            assert url in err


async def test_sigterm_finishes_what_runs_and_refuses_what_is_new(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any, http: Any
) -> None:
    gate = asyncio.Event()
    async with run_proxy_process(teacher, tmp_path) as proxy:
        stored = await send(proxy.address + CHAT, {**ASK, "seed": 0})
        teacher.script(HoldAfter(events=2, gate=gate), HoldAfter(events=1, gate=gate))
        stream = asyncio.create_task(send(proxy.address + CHAT, {**ASK, "stream": True}))
        await teacher.wait_for_calls(2)
        whole = asyncio.create_task(send(proxy.address + CHAT, ASK))
        await teacher.wait_for_calls(3)
        proxy.send(signal.SIGTERM)
        refused = await until_refused(send, proxy.address)
        assert refused.status == 503
        assert refused.headers["x-should-retry"] == "true"
        assert b"shutting down" in refused.body
        assert (await send(f"{proxy.address}/v1/files", ASK)).status == 503
        # What is stored costs nothing, so it is still given.
        assert (await send(proxy.address + CHAT, {**ASK, "seed": 0})).body == stored.body
        joined = asyncio.create_task(send(proxy.address + CHAT, ASK))
        await asyncio.sleep(0.05)
        assert not stream.done()
        gate.set()
        answers = [await stream, await whole, await joined]
        assert [answer.status for answer in answers] == [200, 200, 200]
        assert answers[0].body.endswith(b"data: [DONE]\n\n")
        assert await proxy.wait() == 0
    async with run_proxy_process("http://127.0.0.1:9", tmp_path, "--mode", "bypass"):
        pass
    # Both were bought once, and kept.
    assert teacher.count() == 3
    async with run_proxy_process(teacher, tmp_path) as proxy:
        assert (await send(proxy.address + CHAT, {**ASK, "stream": True})).body == answers[0].body
        assert (await send(proxy.address + CHAT, ASK)).body == answers[1].body
    assert teacher.count() == 3


async def until_refused(send: Any, address: str) -> Any:
    """Ask new questions until the proxy says that it takes none."""
    async with asyncio.timeout(10):
        for seed in range(1_000, 2_000):
            got = await send(address + "/v1/nothing", {"seed": seed})
            if got.status != 404:
                return got
    raise AssertionError("it goes on taking questions")


async def test_sigterm_does_not_wait_for_what_waits(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    """A call between two attempts has nothing under way: its client is told to come again, now and not in an hour."""
    teacher.script(RateLimited(retry_after=3600))
    async with run_proxy_process(teacher, tmp_path) as proxy:
        waiting = asyncio.create_task(send(proxy.address + CHAT, ASK))
        await proxy.lanes_until(lambda lanes: any(lane["paused_seconds"] for lane in lanes))
        proxy.send(signal.SIGTERM)
        got = await waiting
        assert (got.status in (429, 503), got.headers["x-should-retry"]) == (True, "true")
        assert await proxy.wait() == 0
    assert teacher.count() == 1


async def test_a_call_that_fails_while_the_server_stops_is_not_sent_again(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any
) -> None:
    teacher.hold()
    teacher.script(RateLimited(retry_after_ms=50))
    async with run_proxy_process(teacher, tmp_path) as proxy:
        waiting = asyncio.create_task(send(proxy.address + CHAT, ASK))
        await teacher.wait_for_calls(1)
        proxy.send(signal.SIGTERM)
        await until_refused(send, proxy.address)
        teacher.release()
        got = await waiting
        assert (got.status in (429, 503), got.headers["x-should-retry"]) == (True, "true")
        assert await proxy.wait() == 0
    assert teacher.count() <= 1 + teacher.count("/v1/nothing")


async def test_sigint_is_as_good(teacher: ScriptedTeacher, tmp_path: Path, send: Any) -> None:
    async with run_proxy_process(teacher, tmp_path) as proxy:
        await send(proxy.address + CHAT, ASK)
        proxy.send(signal.SIGINT)
        assert await proxy.wait() == 0
        _, err = await proxy.output()
    assert "Traceback" not in err


async def test_the_environment_and_the_config_file_are_obeyed(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'mode = "refresh"\n[upstreams.t]\nurl = "{teacher.base_url}"\n')
    environment = {"KDPROXY_MODE": "replay", "KDPROXY_LOG_LEVEL": "error"}
    async with run_proxy_process([], tmp_path / "d", "--config", str(config), environment=environment) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 504
        # A proxy in replay mode stays in it, so the flag is proven on another.
    async with run_proxy_process(
        [], tmp_path / "d", "--config", str(config), "--mode", "cache", environment=environment
    ) as proxy:
        assert (await send(proxy.address + CHAT, ASK)).status == 200
        assert (await send(proxy.address + CHAT, ASK)).status == 200
    assert teacher.count() == 1


async def test_nothing_is_written_beside_the_data_directory(
    teacher: ScriptedTeacher, tmp_path: Path, send: Any
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with run_proxy_process(teacher, tmp_path / "data", environment={"HOME": str(home)}) as proxy:
        await send(proxy.address + CHAT, ASK)
    assert list(home.iterdir()) == []
    assert {entry.name for entry in tmp_path.iterdir()} == {"data", "home"}
