"""Where it listens, and what happens where more clients come than there are files for."""

import asyncio
import re
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from kdproxy.testing.proxy import run_proxy, run_proxy_process
from kdproxy.web import listener
from tests.wire import Request, WireServer, chat

pytestmark = pytest.mark.asyncio

CHAT = "/v1/chat/completions"
CALLERS = 300


def ask(text: str) -> dict[str, Any]:
    return {"model": "m", "temperature": 0, "messages": [{"role": "user", "content": text}]}


def own(request: Request) -> list[Any]:
    return [chat(str(orjson.loads(request.body)["messages"][0]["content"]))]


@asynccontextmanager
async def limited(upstream: str, data_dir: Path, files: int) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A `kdproxy serve` that may have so many files open and cannot raise that."""
    process = await asyncio.create_subprocess_exec(
        *("sh", "-c", f'ulimit -n {files} && exec "$@"', "sh", sys.executable, "-m", "kdproxy", "serve"),
        *("--port", "0", "--data-dir", str(data_dir), "--upstream", upstream, "--config", "/dev/null"),
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while (found := re.search(rb"listens on (\S+)", await process.stderr.readline())) is None:
                pass
        yield found[1].decode(), process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def stopped(process: asyncio.subprocess.Process) -> str:
    process.send_signal(signal.SIGTERM)
    _, err = await asyncio.wait_for(process.communicate(), 30)
    return err.decode()


@pytest.fixture
def many_files() -> Any:
    """This process holds both ends of each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4_096) if hard > 0 else 4_096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_more_callers_than_files_all_get_their_answer(many_files: None, send: Any, tmp_path: Path) -> None:
    async with WireServer(own) as upstream, limited(upstream.url, tmp_path / "data", 256) as (address, process):
        answers = await asyncio.gather(*(send(address + CHAT, ask(str(n))) for n in range(CALLERS)))
        for number, got in enumerate(answers):
            assert orjson.loads(got.body)["choices"][0]["message"]["content"] == str(number)
        assert sum(request.raw_head.startswith(b"POST") for request in upstream.requests) == CALLERS
        err = await stopped(process)
    assert "maximum number of clients connected" in err
    assert "the upstream fails every call" not in err


async def test_files_that_run_out_all_the_same_are_reported_and_waited_for(
    many_files: None, send: Any, tmp_path: Path
) -> None:
    """The limit is lowered from outside, so that what the start has counted on is not there."""

    async def answer(address: str, text: str) -> str:
        while True:
            try:
                got = await send(address + CHAT, ask(text))
            except aiohttp.ServerDisconnectedError:
                continue  # an idle connection may end as it is used again: clients ask once more
            if got.status == 200:
                return str(orjson.loads(got.body)["choices"][0]["message"]["content"])
            assert (got.status, got.headers["x-should-retry"]) == (503, "true"), got.body
            await asyncio.sleep(float(got.headers["retry-after"]))

    async with WireServer(own) as upstream, run_proxy_process(upstream.url, tmp_path / "data") as proxy:
        await answer(proxy.address, "all of its own files are open then")
        limit = len(list(Path(f"/proc/{proxy.pid}/fd").iterdir())) + 20
        resource.prlimit(proxy.pid, resource.RLIMIT_NOFILE, (limit, limit))
        texts = [str(number) for number in range(40)]
        async with asyncio.timeout(20):
            assert await asyncio.gather(*(answer(proxy.address, text) for text in texts)) == texts
        assert len(upstream.requests) == len(texts) + 1
        proxy.send(signal.SIGTERM)
        assert await proxy.wait() == 0
        _, err = await proxy.output()
    assert "out of file descriptors" in err
    assert "the upstream fails every call" not in err


async def test_both_loopback_addresses_are_served(send: Any, tmp_path: Path) -> None:
    async with WireServer(own) as upstream, run_proxy_process(upstream.url, tmp_path / "data") as proxy:
        port = proxy.address.rpartition(":")[2]
        for name in ("127.0.0.1", "[::1]", "localhost"):
            got = await send(f"http://{name}:{port}{CHAT}", ask(name))
            assert orjson.loads(got.body)["choices"][0]["message"]["content"] == name


async def test_a_port_that_another_program_has_on_ipv6_alone(caplog: pytest.LogCaptureFixture, send: Any) -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        async with WireServer(own) as upstream, run_proxy(upstream.url, port=port) as proxy:
            assert (await send(proxy.address + CHAT, ask("x"))).status == 200
    assert [record for record in caplog.records if record.message.startswith("cannot listen on [::1]")]


async def test_a_machine_without_ipv6(monkeypatch: pytest.MonkeyPatch, send: Any) -> None:
    bind_one = listener._bind

    def bind(family: int, address: tuple[Any, ...]) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return bind_one(family, address)

    monkeypatch.setattr(listener, "_bind", bind)
    async with WireServer(own) as upstream, run_proxy(upstream.url) as proxy:
        assert (await send(proxy.address + CHAT, ask("x"))).status == 200
