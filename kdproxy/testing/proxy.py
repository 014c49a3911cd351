"""Runs a proxy inside a test: in the test's own loop, or as a real process that can be killed.

async with ScriptedTeacher() as teacher, run_proxy(teacher) as proxy:
    client = openai.AsyncOpenAI(base_url=proxy.base_url, api_key="any")
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from kdproxy.app import App, changed_upstreams, open_directory
from kdproxy.settings import load
from kdproxy.storage.lock import read_owner
from kdproxy.testing.teacher import ScriptedTeacher

Teacher = ScriptedTeacher | str | Sequence[str]
"""A running teacher, a URL, or several of `URL` and `NAME=URL`."""

Tables = Mapping[str, Mapping[str, str]]
"""Upstreams as `kdproxy.toml` has them: NAME to url, provider, credential_env."""

START_SECONDS = 30.0
STOP_SECONDS = 30.0
STATE_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProxy:
    """A proxy that listens."""

    address: str
    """Root URL, as Anthropic's and Google's clients take it."""
    data_dir: Path
    app: App

    @property
    def base_url(self) -> str:
        """URL as OpenAI's clients take it."""
        return f"{self.address}/v1"


@asynccontextmanager
async def run_proxy(
    teacher: Teacher | Tables,
    *,
    data_dir: Path | None = None,
    environment: Mapping[str, str] | None = None,
    **settings: Any,
) -> AsyncIterator[RunningProxy]:
    """Run a proxy on a free port while entered.

    Args:
        teacher: its upstream.
        data_dir: its data directory; None: a directory that is removed afterwards.
        environment: replaces the process's environment; empty by default.
        settings: by name, as in `kdproxy.toml`.

    Raises:
        KdproxyError: as `kdproxy serve` would fail.
    """
    with contextlib.ExitStack() as stack:
        path = data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kdproxy-")))
        upstreams = teacher if isinstance(teacher, Mapping) else _upstreams(teacher)
        flags = {"port": 0, "drain_seconds": 5.0, **settings, "data_dir": str(path), "upstreams": upstreams}
        loaded = load(flags, environment=environment or {}, config=Path(os.devnull))
        directory = open_directory(loaded.settings, command="run_proxy")
        stack.callback(directory.close)
        changed_upstreams(loaded.settings, directory)
        app = App(loaded.settings, directory)
        await app.start()
        try:
            yield RunningProxy(address=app.address, data_dir=path, app=app)
        finally:
            await app.stop()


@dataclass(slots=True, kw_only=True)
class ProxyProcess:
    """A `kdproxy serve` process that listens."""

    address: str
    data_dir: Path
    process: asyncio.subprocess.Process
    _streams: list[asyncio.Task[bytes]] = field(default_factory=list)
    _err: bytearray = field(default_factory=bytearray)

    @property
    def base_url(self) -> str:
        """URL as OpenAI's clients take it."""
        return f"{self.address}/v1"

    @property
    def pid(self) -> int:
        """The process."""
        return self.process.pid

    def said(self) -> bytes:
        """Return the stderr output so far."""
        return bytes(self._err)

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process."""
        self.process.send_signal(number)

    async def kill(self) -> None:
        """Send SIGKILL: nothing is written after it."""
        if self.process.returncode is None:
            self.process.kill()
        await self.wait()

    async def wait(self) -> int:
        """Return the exit code. Raises TimeoutError if the process does not exit."""
        async with asyncio.timeout(STOP_SECONDS):
            return await self.process.wait()

    async def lanes_until(self, is_so: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """Ask for the lanes, as `kdproxy stats` does, until a condition holds; return them. Raises TimeoutError."""
        owner = read_owner(self.data_dir)
        assert owner is not None, "the proxy has exited"
        url, headers = f"{self.address}/_kdproxy/api/stats", {"Authorization": f"Bearer {owner.token}"}
        async with aiohttp.ClientSession() as session, asyncio.timeout(STATE_SECONDS):
            while True:
                async with session.post(url, json={}, headers=headers) as response:
                    *_, last = (await response.read()).splitlines()
                lanes: list[dict[str, Any]] = json.loads(last)["result"]["serving"]["lanes"]
                if is_so(lanes):
                    return lanes

    async def output(self) -> tuple[str, str]:
        """Return all of stdout and stderr, once the process has ended."""
        out, err = await asyncio.gather(*self._streams)
        return out.decode(), err.decode()


@asynccontextmanager
async def run_proxy_process(
    teacher: Teacher,
    data_dir: Path,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
) -> AsyncIterator[ProxyProcess]:
    """Run `kdproxy serve` as its own process while entered; it is killed on exit if it still runs.

    Args:
        arguments: more flags.
        environment: variables besides PATH and HOME.

    Raises:
        RuntimeError: it ended before it listened; the text is its stderr.
    """
    process = await start_serve(teacher, data_dir, *arguments, environment=environment)
    err = bytearray()
    streams = [asyncio.ensure_future(_rest(process.stdout)), asyncio.ensure_future(_rest(process.stderr, err))]
    try:
        address = await _address(process, data_dir)
        if address is None:
            raise RuntimeError((await streams[1]).decode())
        yield ProxyProcess(address=address, data_dir=data_dir, process=process, _streams=streams, _err=err)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await asyncio.gather(*streams)


async def start_serve(
    teacher: Teacher, data_dir: Path, *arguments: str, environment: Mapping[str, str] | None = None
) -> asyncio.subprocess.Process:
    """Start `kdproxy serve` on a free port and return at once; its output is piped.

    It does not check the upstreams at start, so that a teacher counts only questions; the environment can enable it.
    """
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    upstreams = [part for upstream in _upstreams(teacher) for part in ("--upstream", upstream)]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "kdproxy", "serve", "--port", "0", "--data-dir", str(data_dir), "--config", os.devnull),
        *upstreams,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**kept, "KDPROXY_CHECK_UPSTREAMS": "false", **(environment or {})},
    )


async def _address(process: asyncio.subprocess.Process, data_dir: Path) -> str | None:
    """Wait for the address in the lock file; None if the process ends before."""
    async with asyncio.timeout(START_SECONDS):
        while process.returncode is None:
            owner = read_owner(data_dir)
            if owner is not None and owner.pid == process.pid and owner.address is not None:
                return owner.address
            await asyncio.sleep(0.01)
    return None


async def _rest(stream: asyncio.StreamReader | None, into: bytearray | None = None) -> bytes:
    assert stream is not None  # both are piped
    read = bytearray() if into is None else into
    while chunk := await stream.read(65_536):
        read += chunk
    return bytes(read)


def _upstreams(teacher: Teacher) -> list[str]:
    match teacher:
        case ScriptedTeacher():
            return [teacher.base_url]
        case str():
            return [teacher]
        case _:
            return list(teacher)
