"""The proxy's own API: who may call it, and jobs beside a proxy at work."""

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from kdproxy.storage.directory import DataDirectory
from kdproxy.storage.lock import read_owner
from kdproxy.testing.proxy import RunningProxy, run_proxy, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

MODEL = "gpt-4.1"
Command = Callable[..., Awaitable[Any]]
Maker = Callable[..., Any]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"headers": {"Authorization": "Bearer wrong"}}, 401),
        ({"headers": {"Authorization": ""}}, 401),
        ({"headers": {"Authorization": "Basic abc"}}, 401),
        ({"headers": {"Authorization": "Bearer \u00fc"}}, 401),
        ({"headers": {"Origin": "http://127.0.0.1"}}, 403),
        ({"headers": {"Origin": "null"}}, 403),
        ({"headers": {"Host": "evil.example"}}, 421),
        ({"method": "GET"}, 405),
        ({"method": "OPTIONS"}, 405),
        ({"job": "rm"}, 404),
        ({"job": "export/more"}, 404),
        ({"arguments": {"everything": "yes"}}, 400),
        ({"arguments": {"unknown": True}}, 400),
        ({"arguments": [1]}, 400),
    ],
    ids=lambda value: str(value)[:60],
)
async def test_the_api_opens_only_to_the_lock_files_token(
    changes: dict[str, Any], status: int, proxy: RunningProxy, call: Command
) -> None:
    given = {"job": "export", **changes}
    assert (await call(proxy, given.pop("job"), given.pop("arguments", None), **given))[0] == status


async def test_the_api_takes_no_endless_arguments(
    proxy: RunningProxy,
    send: Callable[..., Awaitable[Any]],
) -> None:
    owner = read_owner(proxy.data_dir)
    assert owner is not None
    headers = {"Authorization": f"Bearer {owner.token}"}
    url = f"{proxy.address}/_kdproxy/api/export"
    assert (await send(url, data=io.BytesIO(b'"' + b"x" * (5 << 20) + b'"'), headers=headers)).status == 413


async def test_the_api_needs_its_own_token_where_clients_have_another(
    teacher: ScriptedTeacher, tmp_path: Path, kdproxy: Command, call: Command
) -> None:
    environment = {"KDPROXY_TOKEN": "a-token-of-clients-0123456789"}
    async with run_proxy(teacher, data_dir=tmp_path / "data", environment=environment) as proxy:
        headers = {"Authorization": f"Bearer {environment['KDPROXY_TOKEN']}"}
        assert (await call(proxy, "stats", headers=headers))[0] == 401
        assert (await call(proxy, "stats"))[0] == 200
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{proxy.address}/_kdproxy/healthz") as response,
        ):
            assert response.status == 200
        assert (await kdproxy("stats", "--data-dir", proxy.data_dir)).code == 0


async def test_stats_report_what_the_proxy_did(
    proxy: RunningProxy, send: Callable[..., Awaitable[Any]], teacher: ScriptedTeacher, kdproxy: Command, chat: Maker
) -> None:
    for _ in range(3):
        await send(f"{proxy.base_url}/chat/completions", chat("q"))
    stats = (await kdproxy("stats", "--json", "--data-dir", proxy.data_dir)).json
    assert stats["answers"] == 1
    assert stats["serving"]["address"] == proxy.address
    assert stats["serving"]["pid"] == os.getpid()
    requests = stats["serving"]["ledger"]["requests"]
    assert (requests["hit"], requests["miss"]) == (2, 1)
    (row,) = stats["by_model"]
    assert (row["model"], row["endpoint"], row["answers"]) == (MODEL, "chat.completions", 1)
    assert row["input_tokens"] > 0
    shown = await kdproxy("stats", "--data-dir", proxy.data_dir)
    assert proxy.address in shown.out.decode()


@pytest_asyncio.fixture
async def sealing(teacher: ScriptedTeacher, tmp_path: Path) -> AsyncIterator[RunningProxy]:
    """A proxy that seals a segment every few answers."""
    async with run_proxy(teacher, data_dir=tmp_path / "data", segment_bytes=8_192) as proxy:
        yield proxy


async def test_verify_beside_a_proxy_under_load_finds_nothing(
    sealing: RunningProxy, send: Callable[..., Awaitable[Any]], kdproxy: Command, chat: Maker
) -> None:
    proxy = sealing
    is_over = asyncio.Event()

    async def load(name: int) -> int:
        count = 0
        while not is_over.is_set():
            headers = {"Cache-Control": "no-cache"} if count % 3 == 0 else {}
            await send(f"{proxy.base_url}/chat/completions", chat(f"{name} {count % 20}"), headers=headers)
            count += 1
        return count

    loads = [asyncio.create_task(load(name)) for name in range(3)]
    try:
        for flags in ([], ["--repair"]):
            ran = await kdproxy("verify", "--json", "--data-dir", proxy.data_dir, *flags)
            assert (ran.code, ran.json["findings"], ran.json["problems"]) == (0, [], 0)
            assert not ran.json["is_repaired"]
    finally:
        is_over.set()
        assert sum(await asyncio.gather(*loads)) > 10
    first, second = sorted(proxy.data_dir.glob("api_recovery.0*"))[:2]
    first.write_bytes(b"".join(first.read_bytes().splitlines(keepends=True)[1:]))
    second.write_bytes(b"")
    told = (await kdproxy("verify", "--json", "--data-dir", proxy.data_dir)).json
    assert told["segment"] == 2
    assert {found["segment"] for found in told["findings"] if found["kind"] == "segment"} == {first.name, second.name}


async def test_a_job_whose_caller_leaves_stops_and_the_next_one_runs(
    proxy: RunningProxy, tmp_path: Path, start: Command, rows_file: Maker, warm_here: Command
) -> None:
    file = rows_file(
        tmp_path / "rows.jsonl", *({"prompt": str(n), "response": "r" * 500, "model": MODEL} for n in range(30_000))
    )
    process = await start("warm", file, "--data-dir", proxy.data_dir)
    journal = proxy.data_dir / "api_recovery.jsonl"
    async with asyncio.timeout(20):
        while journal.stat().st_size < 1 << 20:
            await asyncio.sleep(0.001)
    process.send_signal(signal.SIGINT)
    await process.communicate()
    events = await warm_here(proxy, rows_file(tmp_path / "one.jsonl", {"prompt": "new", "response": "r", "model": "m"}))
    assert events[-1]["result"]["prompts"] == 1
    # Jobs that write take turns, so the first one is over by now.
    assert journal.read_bytes().count(b"\n") < 30_000


async def test_a_process_without_an_api_is_named(tmp_path: Path, kdproxy: Command) -> None:
    directory = DataDirectory.open(tmp_path / "data", command="kdproxy warm")
    try:
        ran = await kdproxy("stats", "--data-dir", tmp_path / "data")
    finally:
        directory.close()
    assert ran.code == 1
    assert f"process {os.getpid()}" in ran.err
    assert "kdproxy warm" in ran.err


async def test_a_proxy_that_stops_ends_its_jobs_and_says_so(
    teacher: ScriptedTeacher, tmp_path: Path, kdproxy: Command, start: Command, rows_file: Maker
) -> None:
    file = rows_file(
        tmp_path / "rows.jsonl", *({"prompt": str(n), "response": "r" * 500, "model": MODEL} for n in range(30_000))
    )
    async with run_proxy_process(teacher, tmp_path / "data") as process:
        command = await start("warm", file, "--data-dir", tmp_path / "data")
        journal = tmp_path / "data" / "api_recovery.jsonl"
        async with asyncio.timeout(20):
            while journal.stat().st_size < 1 << 20:
                await asyncio.sleep(0.001)
        process.send(signal.SIGTERM)
        assert await process.wait() == 0
        _, err = await command.communicate()
    assert command.returncode == 1
    assert b"shutting down" in err
    assert (await kdproxy("verify", "--data-dir", tmp_path / "data")).code == 0
