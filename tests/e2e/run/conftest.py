"""Starts `kdproxy run` as its own process, with a script before a scripted teacher."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from kdproxy.testing.teacher import ScriptedTeacher

SECONDS = 30.0

ASK = """
import json, os, signal, sys, time, urllib.error, urllib.request

def ask(words="Why?", base=None):
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": words}]}).encode()
    headers = {"Authorization": "Bearer k", "Content-Type": "application/json"}
    url = (base or os.environ["OPENAI_BASE_URL"]) + "/chat/completions"
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:
        return json.load(answer)["choices"][0]["message"]["content"]

def say(*words):
    print(*words, flush=True)
"""


@dataclass(slots=True)
class Job:
    """A running `kdproxy run`."""

    process: asyncio.subprocess.Process
    _err: bytearray = field(default_factory=bytearray)
    _reading: asyncio.Task[None] | None = None

    def read(self) -> None:
        """Collect stderr from now on."""

        async def read() -> None:
            assert self.process.stderr is not None
            while chunk := await self.process.stderr.read(65_536):
                self._err.extend(chunk)

        self._reading = asyncio.create_task(read())

    def said(self) -> str:
        """Return stderr so far."""
        return self._err.decode()

    async def until_said(self, words: str) -> None:
        """Wait until stderr has these words."""
        async with asyncio.timeout(SECONDS):
            while words not in self.said():
                await asyncio.sleep(0.02)

    async def line(self) -> str:
        """Return the next line of the command's output."""
        assert self.process.stdout is not None
        async with asyncio.timeout(SECONDS):
            return (await self.process.stdout.readline()).decode().strip()

    async def end(self) -> tuple[int, list[str], str]:
        """Return the exit code, the other lines of stdout, and stderr."""
        assert self.process.stdout is not None
        assert self._reading is not None
        async with asyncio.timeout(SECONDS):
            out = await self.process.stdout.read()
            await self._reading
            code = await self.process.wait()
        return code, out.decode().splitlines(), self.said()


@pytest.fixture
def ask_script() -> str:
    """The beginning of each script: `ask` and `say`."""
    return ASK


StartJob = Callable[..., Awaitable[Job]]


@pytest_asyncio.fixture
async def start_job(teacher: ScriptedTeacher, tmp_path: Path) -> AsyncIterator[StartJob]:
    """Start `kdproxy run OPTIONS -- python distill.py` with that script; what still runs at the end is killed."""
    started: list[Job] = []

    async def start_job(
        script: str,
        *options: str,
        command: tuple[str, ...] | None = None,
        environment: Mapping[str, str | None] | None = None,
        script_name: str = "distill.py",
    ) -> Job:
        path = tmp_path / script_name
        path.write_text(ASK + script)
        kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        wanted = {**kept, "HOME": str(tmp_path), "OPENAI_BASE_URL": teacher.base_url, **(environment or {})}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "kdproxy", "run", "--data-dir", str(tmp_path / "data"), *options, "--"),
            *(command or (sys.executable, str(path))),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={name: value for name, value in wanted.items() if value is not None},
            cwd=tmp_path,
        )
        started.append(Job(process))
        started[-1].read()
        return started[-1]

    try:
        yield start_job
    finally:
        for job in started:
            if job.process.returncode is None:
                job.process.kill()
            await job.process.wait()
