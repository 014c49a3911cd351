"""The two distillation scripts: killed, started again, and still the same student, with nothing bought twice."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from kdproxy.testing.proxy import RunningProxy, run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 120
PROMPTS = 12
RESUMED = re.compile(r"^resumed at step \d+: (exact|no difference found|nothing to compare)( \(|$)", re.MULTILINE)
LOSS = re.compile(r"held-out loss: (\S+) before, (\S+) after")

pytestmark = pytest.mark.asyncio


class Running:
    """A script in a process group of its own, its output in a file."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self.process = process
        self.log = log

    async def until(self, is_reached: Callable[[], bool]) -> None:
        """Wait for something that happens while the script runs."""
        async with asyncio.timeout(SECONDS):
            while not is_reached():
                assert self.process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.005)

    async def kill(self) -> None:
        """End the script and its workers at once, as the machine's end would."""
        os.killpg(self.process.pid, signal.SIGKILL)
        assert await self.process.wait() == -signal.SIGKILL

    async def finish(self) -> tuple[float, float]:
        """Return the loss on held-out answers, before and after."""
        async with asyncio.timeout(SECONDS):
            code = await self.process.wait()
        found = LOSS.search(self.log.read_text())
        assert code == 0, self.log.read_text()
        assert found is not None
        return float(found[1]), float(found[2])


@contextlib.asynccontextmanager
async def running(script: str, proxy: RunningProxy, out: Path, *arguments: str) -> AsyncIterator[Running]:
    """Start a script with its client pointed at the proxy."""
    log = out.with_suffix(".log")
    # One thread for each: the processes of a test share two cores with all others.
    environment = {"OPENAI_BASE_URL": proxy.base_url, "OPENAI_API_KEY": "not-needed", "OMP_NUM_THREADS": "1"}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLES / script),
            *("--out", str(out), *arguments),
            stdout=output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,
        )
    try:
        yield Running(process, log)
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def first_steps(out: Path) -> list[int]:
    """Return the first step that each attempt recorded."""
    firsts: dict[int, int] = {}
    for line in (out / "progress" / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "loss" in row:
            firsts.setdefault(row["attempt"], row["step"])
    return list(firsts.values())


@pytest.mark.parametrize("script", ["distill_kd.py", "distill_process.py"])
async def test_killed_while_asking_and_while_training_it_ends_as_if_it_had_not_been(
    tmp_path: Path, script: str
) -> None:
    out, whole = tmp_path / "killed", tmp_path / "whole"
    options = ("--limit", str(PROMPTS), "--max-tokens", "20", "--steps", "100")
    # Every answer of this teacher is unlike all others: one that was bought again would change the student.
    async with ScriptedTeacher(latency_seconds=0.1, answer_words=20) as teacher, run_proxy(teacher) as proxy:
        async with running(script, proxy, out, *options) as run:
            await teacher.wait_for_calls(6, timeout_seconds=SECONDS)
            teacher.hold()
            await run.kill()
        asked = teacher.count()
        assert 6 <= asked < PROMPTS
        teacher.release()
        async with running(script, proxy, out, *options) as run:
            await run.until(lambda: any((out / "checkpoints").glob("step-*")))
            await run.kill()
        assert not (out / "student.safetensors").exists()
        async with running(script, proxy, out, *options) as run:
            before, after = await run.finish()
        assert RESUMED.search(out.with_suffix(".log").read_text()), "the certificate's line is seen without any setup"
        async with running(script, proxy, whole, *options) as run:
            assert await run.finish() == (before, after)
        assert (out / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()
        assert first_steps(out)[-1] >= 20
        assert first_steps(whole) == [0]
        assert teacher.count() == PROMPTS
        assert after < 0.8 * before


@contextlib.asynccontextmanager
async def local_teacher(log: Path) -> AsyncIterator[str]:
    """Run SmolLM2 behind llama.cpp; yields its root URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLES / "local_teacher.py"),
            *("--port", str(port), "--max-seconds", "600"),
            stdout=output,
            stderr=output,
        )
    try:
        async with asyncio.timeout(SECONDS):
            while await asyncio.to_thread(fetch, f"http://127.0.0.1:{port}/health") is None:
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


def fetch(url: str) -> str | None:
    """Return what a GET answers, None while nobody answers."""
    try:
        with urlopen(url, timeout=10) as reply:
            return str(reply.read().decode())
    except (URLError, ConnectionError):
        return None


def tokens_written(metrics: str | None) -> int:
    """Read the server's own count."""
    assert metrics is not None
    counts = dict(line.split() for line in metrics.splitlines() if line and not line.startswith("#"))
    return int(float(counts["llamacpp:tokens_predicted_total"]))


async def test_a_real_teacher_is_paid_once_for_every_token(tmp_path: Path) -> None:
    if not (await local_teacher_is_installed()):
        pytest.skip("the local model is not installed here (make demo installs it): the scripted teacher stands in")
    options = ("--model", "smollm2-135m-instruct", "--limit", "8", "--max-tokens", "12", "--steps", "40")
    out, whole = tmp_path / "killed", tmp_path / "whole"
    async with local_teacher(tmp_path / "teacher.log") as url, run_proxy(f"{url}/v1") as proxy:
        async with running("distill_kd.py", proxy, out, *options) as run:
            await run.until(lambda: b'"answer"' in (proxy.data_dir / "api_recovery.jsonl").read_bytes())
            await run.kill()
        async with running("distill_kd.py", proxy, out, *options) as run:
            before, after = await run.finish()
        async with running("distill_kd.py", proxy, whole, *options) as run:
            assert await run.finish() == (before, after)
        written = tokens_written(await asyncio.to_thread(fetch, f"{url}/metrics"))
    assert written == 8 * 12
    assert (out / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()
    assert after < 0.8 * before


async def local_teacher_is_installed() -> bool:
    """Ask the example itself."""
    code = "import local_teacher, sys; sys.exit(not local_teacher.is_installed())"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, cwd=EXAMPLES)
    return await process.wait() == 0
