"""Step -> samples -> keys -> the journal's answers, of trainings that were killed; and what resuming them cost."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from kdproxy.testing.proxy import ProxyProcess, run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher
from trainhooks import read_lineage

JOB = Path(__file__).with_name("job.py")
TOTAL, SAMPLES, BATCH, LAST_OF_EPOCH = 12, 22, 4, 2

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
    """A teacher whose answers are all unlike each other: one that was bought again could not be the journal's."""
    async with ScriptedTeacher() as teacher:
        yield teacher


async def train(
    clients: Any, out: Path, proxy: ProxyProcess | None, *arguments: object, kill_at: int | None = None
) -> None:
    """Run the job to its end or to its kill."""
    out.mkdir(exist_ok=True)
    kind, workers, *rest = arguments
    url = "http://127.0.0.1:9/v1" if proxy is None else proxy.base_url
    job = clients.run(
        JOB,
        *(out, kind, workers, "never" if kill_at is None else kill_at, *rest),
        output=out / "output.txt",
        env={"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "not-needed"},
    )
    code = await asyncio.to_thread(job.wait)
    assert code == (0 if kill_at is None else -signal.SIGKILL), job.said()


async def bill(out: Path, data_dir: Path, *arguments: object) -> Any:
    """What `trainhooks lineage --journal` says."""
    command = [sys.executable, "-c", "from trainhooks.cli.main import main; main()", "lineage", str(out), "--json"]
    process = await asyncio.create_subprocess_exec(
        *command, "--journal", str(data_dir), *map(str, arguments), stdout=asyncio.subprocess.PIPE
    )
    said, _ = await process.communicate()
    assert process.returncode == 0
    return json.loads(said)


def answers(data_dir: Path) -> dict[tuple[str, int], str]:
    """What the journal holds: (key, ordinal) to the answer's text."""
    lines = map(json.loads, (data_dir / "api_recovery.jsonl").read_text(encoding="utf-8").splitlines())
    bought = [line for line in lines if line["kind"] == "answer"]
    found = {
        (line["key"], line["ordinal"]): json.loads(line["body"])["choices"][0]["message"]["content"] for line in bought
    }
    assert len(found) == len(bought)
    return found


def trace(out: Path) -> dict[int, list[str]]:
    """What the loop saw of each step, each time the same."""
    lines = list(map(json.loads, (out / "trace.jsonl").read_text().splitlines()))
    seen = {line["step"]: line["answers"] for line in lines}
    assert all(line["answers"] == seen[line["step"]] for line in lines)
    return seen


def assert_round_trip(out: Path, data_dir: Path, *, asked: bool = False, ordinal: int | None = None) -> None:
    """Every step's recorded keys lead to the very texts that the loop saw in it."""
    journal, seen, lineage = answers(data_dir), trace(out), read_lineage(out)
    assert list(lineage.steps) == sorted(seen) == list(range(TOTAL))
    steps_of_epoch = -(-SAMPLES // BATCH)
    for step, found in lineage.steps.items():
        assert found.ids is not None
        assert (found.step, found.epoch, found.ranks) == (step, step // steps_of_epoch, 1)
        assert len(found.ids) == (LAST_OF_EPOCH if step % steps_of_epoch == steps_of_epoch - 1 else BATCH)
        keys = [(key,) for key in found.asked] if asked else list(found.keys or ())
        assert [[each for _, each in its_keys] for its_keys in keys] == [[ordinal]] * len(found.ids)
        assert [journal[its_keys[0][0], 0] for its_keys in keys] == seen[step], f"step {step}"
    for epoch in range(2):
        ids = [each for found in lineage.steps.values() if found.epoch == epoch for each in found.ids or ()]
        assert sorted(ids) == list(range(SAMPLES)), "each sample once in an epoch"


@pytest.mark.parametrize("workers", [0, 2])
async def test_samples_that_are_asked_for_while_they_are_loaded(
    clients: Any, sold: ScriptedTeacher, tmp_path: Path, workers: int
) -> None:
    out, data = tmp_path / "run", tmp_path / "data"
    async with run_proxy_process(sold, data) as proxy:
        await train(clients, out, proxy, "asking", workers, kill_at=4)
        await train(clients, out, proxy, "asking", workers, kill_at=10)
        assert sold.count() == SAMPLES
        await proxy.kill()
    async with run_proxy_process(sold, data) as proxy:
        await train(clients, out, proxy, "asking", workers)
    assert sold.count() == SAMPLES, "no question was bought twice, and the last resume bought nothing"
    assert_round_trip(out, data)
    whole, step = await bill(out, data), await bill(out, data, "--step", 2)
    bought = [json.loads(line) for line in (data / "api_recovery.jsonl").read_text().splitlines()]
    bought = [line for line in bought if line["kind"] == "answer"]
    assert (whole["questions"], whole["found"], whole["answers"]) == (SAMPLES,) * 3
    assert whole["output_tokens"] == sum(line["usage"]["output_tokens"] for line in bought) > 0
    assert (whole["cost_usd"], whole["without_cost"]) == ("0", SAMPLES), "nobody knows what this teacher takes"
    keys = {key for key, _ in read_lineage(out).steps[2].answers}
    assert step["output_tokens"] == sum(line["usage"]["output_tokens"] for line in bought if line["key"] in keys)
    assert step["answers"] == BATCH


async def test_rows_of_an_export_name_their_key_and_ordinal(
    clients: Any, sold: ScriptedTeacher, tmp_path: Path
) -> None:
    bought, out, data, rows = (tmp_path / name for name in ("bought", "run", "data", "rows.jsonl"))
    async with run_proxy_process(sold, data) as proxy:
        await train(clients, bought, proxy, "asking", 0)
    export = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kdproxy", "export", "--format", "chat", "--output", str(rows)),
        *("--data-dir", str(data), "--config", os.devnull),
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await export.communicate()
    assert export.returncode == 0, said.decode()
    for kill_at in (4, 10, None):
        await train(clients, out, None, "exported", 2, rows, kill_at=kill_at)
    assert sold.count() == SAMPLES
    assert_round_trip(out, data, ordinal=0)


async def test_what_the_loop_asks_is_the_steps(clients: Any, sold: ScriptedTeacher, tmp_path: Path) -> None:
    out, data = tmp_path / "run", tmp_path / "data"
    async with run_proxy_process(sold, data) as proxy:
        for kill_at in (4, 10, None):
            await train(clients, out, proxy, "loop", 0, kill_at=kill_at)
    assert sold.count() == SAMPLES
    assert_round_trip(out, data, asked=True)
    assert all(found.keys is None for found in read_lineage(out).steps.values())
