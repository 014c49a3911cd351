"""The teacher's samples through a resume: training and proxy are killed with SIGKILL, and both start again.

A killed and resumed training is compared with an uninterrupted one that replays the run in a new attempt: the same
answers in the same order, and none of them was bought twice. More situations: test_sample_situations.py.
"""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kdproxy.storage.lock import read_owner
from kdproxy.testing.proxy import ProxyProcess, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher
from tests.trainhooks.resume.job_samples import EVERY, TOTAL

JOB = Path(__file__).with_name("job_samples.py")
KILL_AT = EVERY * 2 + 2

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def _clients(zygote_with: Callable[..., Any]) -> Any:
    return zygote_with("openai", "openai.resources.chat")


@pytest.fixture
def clients(_clients: Any) -> Iterator[Any]:
    """A zygote with the official client imported; what still runs at the end is killed."""
    yield _clients
    _clients.end_jobs()


@pytest_asyncio.fixture
async def sold() -> AsyncIterator[ScriptedTeacher]:
    """A teacher whose answers are all unlike each other."""
    async with ScriptedTeacher() as teacher:
        yield teacher


class Training:
    """One run at the teacher, trained and killed."""

    def __init__(self, clients: Any, teacher: ScriptedTeacher, path: Path, kind: str, workers: int) -> None:
        self.clients, self.teacher, self.path = clients, teacher, path
        self.kind, self.workers = kind, workers

    def proxy(self) -> Any:
        return run_proxy_process(self.teacher, self.path / "data")

    async def train(
        self, proxy: ProxyProcess, attempt: str, *, kill_at: int | None = None, out: str = "out", fails: bool = False
    ) -> str:
        """Run the job to its end or its kill; returns what it said."""
        directory = self.path / out
        directory.mkdir(exist_ok=True)
        owner = read_owner(proxy.data_dir)
        assert owner is not None
        place = f"{proxy.address}/runs/r/attempts/{attempt}"
        job = self.clients.run(
            JOB,
            *(directory, self.kind, self.workers, "never" if kill_at is None else kill_at),
            output=directory / "output.txt",
            env={
                "OPENAI_BASE_URL": f"{place}/v1",
                "OPENAI_API_KEY": "not-needed",
                "KDPROXY_RUN_URL": place,
                "KDPROXY_TOKEN": owner.token,
            },
        )
        code = await asyncio.to_thread(job.wait)
        assert code == (-signal.SIGKILL if kill_at is not None else 1 if fails else 0), job.said()
        return str(job.said())

    async def resumed(self, *, kills_proxy: bool) -> str:
        """Train; kill training and proxy; start both again, in another attempt; returns what the resume said.

        Then train without a kill in a third attempt, as what the first two are compared with.
        """
        async with self.proxy() as proxy:
            await self.train(proxy, "one", kill_at=KILL_AT)
            if not kills_proxy:
                said = await self.train(proxy, "two")
                await self.whole(proxy)
                return said
            await proxy.kill()
        async with self.proxy() as proxy:
            said = await self.train(proxy, "two")
            await self.whole(proxy)
        return said

    async def whole(self, proxy: ProxyProcess) -> None:
        """Train without a kill, in a new attempt: what it gets is stored."""
        bought = self.teacher.count()
        await self.train(proxy, "whole", out="whole")
        if self.workers == 0:
            assert self.teacher.count() == bought, "the uninterrupted training bought what the killed one had not"
        lines = map(json.loads, (self.path / "data" / "api_recovery.jsonl").read_text().splitlines())
        paid = [(line["key"], line.get("ordinal", 0)) for line in lines if line["kind"] == "answer"]
        assert len(paid) == len(set(paid)), "a sample was bought twice"

    def trace(self, out: str = "out") -> list[Any]:
        """The answers of each step, as they were got last."""
        lines = map(json.loads, (self.path / out / "trace.jsonl").read_text().splitlines())
        found = {line["step"]: line["answers"] for line in lines}
        return [found[step] for step in range(TOTAL)]

    def certificate(self) -> dict[str, Any]:
        session = json.loads((self.path / "out" / "progress" / "session.json").read_text())
        certificate: dict[str, Any] = session["attempts"][-1]["certificate"]
        return certificate


Make = Callable[[str, int], Training]


@pytest.fixture
def training(clients: Any, sold: ScriptedTeacher, tmp_path: Path) -> Make:
    return lambda kind, workers: Training(clients, sold, tmp_path, kind, workers)


@pytest.mark.parametrize(
    ("kind", "workers", "kills_proxy"),
    [
        pytest.param("data", 0, True, marks=pytest.mark.faults),  # without a worker: also in the other file
        ("data", 1, True),
        ("ahead", 2, True),
    ],
)
async def test_a_resume_gets_the_answers_of_an_uninterrupted_training(
    training: Make, kind: str, workers: int, kills_proxy: bool
) -> None:
    run = training(kind, workers)
    said = await run.resumed(kills_proxy=kills_proxy)
    assert run.trace() == run.trace("whole"), said
    certificate = run.certificate()
    assert certificate.get("samples") is None, certificate
    assert "samples" in certificate["at_start"]
    assert certificate["verdict"] == "exact", certificate


async def test_what_cannot_be_exact_is_said(training: Make) -> None:
    run = training("data", 2)
    async with run.proxy() as proxy:
        await run.train(proxy, "one", kill_at=KILL_AT)
        said = await run.train(proxy, "two")
    certificate = run.certificate()
    assert "2 workers of the loader ask at once" in certificate["samples"]
    assert certificate["verdict"] != "exact"
    assert "Kdproxy-Sample" in said


async def test_another_data_directory_is_refused_before_anything_is_bought(training: Make) -> None:
    run = training("data", 0)
    async with run.proxy() as proxy:
        await run.train(proxy, "one", kill_at=KILL_AT)
        await proxy.kill()
    bought = run.teacher.count()
    async with run_proxy_process(run.teacher, run.path / "other") as proxy:
        said = await run.train(proxy, "one", fails=True)
    assert "SamplesNotRestored" in said
    assert "drift={'samples': 'allow'}" in said
    assert run.teacher.count() == bought
