"""Jobs, the proxy, or both are killed at random moments; the oracle is this process and the teacher's own count.

No sample is paid for twice but for calls in flight at a kill of the proxy, no attempt is given a sample twice, none is
skipped, and a replay is identical.
"""

import asyncio
import json
import signal
import socket
import sys
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import orjson
import pytest
import pytest_asyncio

from kdproxy.testing.proxy import ProxyProcess, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

JOB = Path(__file__).with_name("sampling_job.py")
PROMPTS = 6
AT_ONCE = 16
"""Calls of the job at once: so many may be in flight at a kill."""


class Job:
    """A process of the job."""

    started: ClassVar[list["Job"]] = []

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.started.append(self)

    @classmethod
    async def start(cls, url: str, results: Path, samples: int, *flags: str) -> "Job":
        arguments = (url, str(results), str(PROMPTS), str(samples), *flags)
        return cls(await asyncio.create_subprocess_exec(sys.executable, str(JOB), *arguments))

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@pytest_asyncio.fixture(autouse=True)
async def no_job_is_left() -> AsyncIterator[None]:
    """A job asks for ever where its proxy is gone."""
    yield
    while Job.started:
        await Job.started.pop().kill()


def rows_of(results: Path) -> list[dict[str, Any]]:
    """Read what a job has written; a line that a kill cut is none."""
    if not results.exists():
        return []
    lines = results.read_bytes().split(b"\n")[:-1]
    return [orjson.loads(line) for line in lines]


def url_of(proxy: ProxyProcess, attempt: str) -> str:
    return f"{proxy.address}/runs/r/attempts/{attempt}/v1"


def text_of(row: dict[str, Any]) -> str:
    """Return an answer's text, by which the teacher tells each from all others."""
    raw = row["raw"]
    if raw.startswith("{"):
        return str(json.loads(raw)["choices"][0]["message"]["content"])
    events = [line[6:] for line in raw.splitlines() if line.startswith("data: {")]
    return "".join(
        json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events if "delta" in event
    )


def check_attempt(rows: list[dict[str, Any]], known: dict[tuple[int, int], str]) -> None:
    """An attempt is given each sample once; the same sample is the same answer in each attempt."""
    given: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        given[row["prompt"]].append(row["sample"])
        text = text_of(row)
        assert known.setdefault((row["prompt"], row["sample"]), text) == text
    for samples in given.values():
        assert len(set(samples)) == len(samples)
    assert len(set(known.values())) == len(known)


async def work(job: Job, teacher: ScriptedTeacher, rng: Random) -> None:
    """Return at a random moment of the job's work: after some calls, and a little later.

    The calls that the last kill cut are made and answered first: a sample whose calls are cut three times in a row is
    not asked for again for a while (docs/retries.md).
    """
    until = teacher.count() + 2 * AT_ONCE + rng.randrange(2 * AT_ONCE)
    async with asyncio.timeout(20):
        while teacher.count() < until and job.process.returncode is None:
            await asyncio.sleep(0.002)
    await asyncio.sleep(rng.uniform(0.0, 0.03))


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.mark.parametrize(("kills", "seed"), [(3, 1), pytest.param(120, 2, marks=pytest.mark.faults)])
async def test_attempts_that_start_over_replay_and_buy_only_what_is_missing(
    tmp_path: Path, kills: int, seed: int
) -> None:
    rng = Random(seed)
    known: dict[tuple[int, int], str] = {}
    samples, in_flight = 4, 0
    async with ScriptedTeacher(latency_seconds=0.03) as teacher:
        for number in range(kills):
            samples += rng.randrange(4, 12)
            async with run_proxy_process(teacher, tmp_path / "data") as proxy:
                job = await Job.start(url_of(proxy, str(number)), tmp_path / str(number), samples)
                await work(job, teacher, rng)
                if rng.random() < 0.5:
                    in_flight += AT_ONCE
                    await proxy.kill()
                await job.kill()
                if proxy.process.returncode is None:
                    proxy.send(signal.SIGTERM)  # it finishes what it has sent
                    await proxy.wait()
            check_attempt(rows_of(tmp_path / str(number)), known)
        for attempt in ("last", "replay"):
            async with run_proxy_process(teacher, tmp_path / "data") as proxy:
                job = await Job.start(url_of(proxy, attempt), tmp_path / attempt, samples)
                assert await asyncio.wait_for(job.process.wait(), 60) == 0
            check_attempt(rows_of(tmp_path / attempt), known)
            if attempt == "last":
                bought = teacher.count()
    last, again = (
        {(row["prompt"], row["sample"]): row["raw"] for row in rows_of(tmp_path / attempt)}
        for attempt in ("last", "replay")
    )
    assert set(last) == {(prompt, sample) for prompt in range(PROMPTS) for sample in range(samples)}
    assert again == last
    assert teacher.count() == bought
    assert PROMPTS * samples <= bought <= PROMPTS * samples + in_flight


@pytest.mark.parametrize(("kills", "seed"), [(3, 3), pytest.param(120, 4, marks=pytest.mark.faults)])
async def test_a_job_that_skips_what_it_has_continues_its_attempt(tmp_path: Path, kills: int, seed: int) -> None:
    rng = Random(seed)
    results, port = tmp_path / "rows", free_port()
    samples, in_flight, unread = 4, 0, 0
    job: Job | None = None
    async with ScriptedTeacher(latency_seconds=0.03) as teacher:
        for _ in range(kills):
            samples += rng.randrange(4, 12)
            async with run_proxy_process(teacher, tmp_path / "data", "--port", port) as proxy:
                if job is None or job.process.returncode is not None:
                    job = await Job.start(url_of(proxy, "one"), results, samples, "--skip-done")
                await work(job, teacher, rng)
                if rng.random() < 0.6:
                    unread += AT_ONCE
                    await job.kill()
                in_flight += AT_ONCE
                await proxy.kill()
            check_attempt(rows_of(results), {})
        assert job is not None
        async with run_proxy_process(teacher, tmp_path / "data", "--port", port) as proxy:
            await asyncio.wait_for(job.process.wait(), 60)
            job = await Job.start(url_of(proxy, "one"), results, samples, "--skip-done")
            assert await asyncio.wait_for(job.process.wait(), 60) == 0
    rows = rows_of(results)
    check_attempt(rows, {})
    assert len(rows) == PROMPTS * samples
    used = {(row["prompt"], row["sample"]) for row in rows}
    # What a killed job had been given and never wrote down stays used: bounded by what was on its way.
    assert max(sample for _, sample in used) < samples + unread + in_flight
    assert teacher.count() <= len(used) + unread + in_flight
