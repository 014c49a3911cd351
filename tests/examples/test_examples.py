"""The example scripts as a user runs them: real processes, the official clients, a real proxy in between."""

import asyncio
import contextlib
import importlib
import io
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from rich.console import Console

from kdproxy.core.models import Usage
from kdproxy.testing.teacher import ScriptedTeacher

EXAMPLES = Path(__file__).parents[2] / "examples"
SECONDS = 180


async def run_example(name: str, base_url: str, *arguments: str) -> str:
    """Run a script with its clients pointed at `base_url` and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / name),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={
            **os.environ,
            "OPENAI_BASE_URL": f"{base_url}/v1",
            "OPENAI_API_KEY": "not-needed",
            "ANTHROPIC_BASE_URL": base_url,
            "ANTHROPIC_API_KEY": "not-needed",
        },
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    text = output.decode(errors="replace")
    assert process.returncode == 0, text
    return text


def is_healthy(url: str) -> bool:
    try:
        with urlopen(f"{url}/_kdproxy/healthz", timeout=5):
            return True
    except (URLError, ConnectionError):
        return False


@contextlib.asynccontextmanager
async def serving_proxy(teacher: ScriptedTeacher, data_dir: Path) -> AsyncIterator[str]:
    """Run `kdproxy serve` in front of the teacher; yield its address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    log = data_dir.with_suffix(".log")
    command = ["-m", "kdproxy", "serve", "--upstream", f"teacher={teacher.root_url}"]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *[*command, "--data-dir", str(data_dir), "--port", str(port)],
            stdout=output,
            stderr=output,
        )
    try:
        async with asyncio.timeout(SECONDS):
            while not await asyncio.to_thread(is_healthy, url):
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.05)
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()


@pytest.mark.asyncio
async def test_the_script_works_without_any_proxy(tmp_path: Path) -> None:
    async with ScriptedTeacher() as teacher:
        out = tmp_path / "train.jsonl"
        await run_example("distill_openai.py", teacher.root_url, "--out", str(out), "--limit", "4")
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert len(rows) == teacher.count("/chat/completions") == 4
        assert sum(json.loads(call.body).get("stream", False) for call in teacher.calls) == 1
        for row in rows:
            assert row["response"]
            assert "".join(label["token"] for label in row["labels"]) == row["response"]
            assert len(row["labels"][0]["top"]) == 5
            assert row["usage"]["completion_tokens"] > 0


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("script", "suffix"),
    [("distill_openai.py", "/chat/completions"), ("distill_anthropic.py", "/messages")],
)
async def test_the_second_run_is_free_and_byte_identical(tmp_path: Path, script: str, suffix: str) -> None:
    async with ScriptedTeacher() as teacher:
        outs = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
        counts = []
        for out in outs:  # a new proxy each time: what is known is on disk
            async with serving_proxy(teacher, tmp_path / "data") as url:
                await run_example(script, url, "--out", str(out), "--limit", "7")
            counts.append(teacher.count(suffix))
        assert counts == [7, 7]
        assert outs[0].read_bytes() == outs[1].read_bytes()
        assert outs[0].read_bytes().count(b"\n") == 7


@pytest.mark.asyncio
async def test_the_demo_kills_resumes_and_keeps_every_promise(tmp_path: Path) -> None:
    output = await run_example(
        "demo.py", "http://127.0.0.1:9", "--scripted", "--limit", "12", "--folder", str(tmp_path / "demo")
    )
    assert "the scripted teacher stands in" in output
    assert "byte for byte those of a student that was never killed" in output
    assert "byte-identical" in output
    assert "BROKEN" not in output
    assert "gpt-4o" in output


SLOW = """
import dataclasses, sys
folder, latency_ms, limits, *sys.argv[1:] = sys.argv[1:]
sys.path.insert(0, folder)
import demo

def slow_model():
    scripted = demo.scripted_teacher()
    command = [*scripted.command, "--latency-ms", latency_ms]
    return dataclasses.replace(scripted, command=command, model="slow-model", is_local_model=True)

demo.local_model = slow_model
first, budget, silent, tell = map(float, limits.split())
demo.FIRST_ANSWER_SECONDS, demo.BUDGET_SECONDS, demo.SILENT_SECONDS, demo.TELL_SECONDS = first, budget, silent, tell
demo.student.broken_promises = lambda demo: []
sys.exit(demo.main())
"""
"""The demo with a local model that takes its time: milliseconds an answer; first answer, budget, silence, telling."""


@pytest.mark.parametrize(
    ("latency_ms", "limits", "says"),
    [
        ("60000", "1 600 60 0.5", "no answer of slow-model within 1 s"),
        ("1500", "30 5 60 0.5", "an answer of slow-model takes 2 s here, and the demo 0 minutes"),
    ],
    ids=["no first answer", "over the budget"],
)
@pytest.mark.asyncio
async def test_the_demo_on_a_slow_machine(tmp_path: Path, latency_ms: str, limits: str, says: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", SLOW, str(EXAMPLES), latency_ms, limits, "--limit", "4", "--folder", str(tmp_path / "demo")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    text = " ".join(output.decode().split())
    assert process.returncode == 0, text
    assert f"too slow for the local model ({says}" in text
    assert "the scripted teacher stands in" in text
    assert "of 4 rows, " in text, "it shows how far it is"
    assert "byte-identical" in text
    assert "BROKEN" not in text


def test_a_slow_script_is_waited_for_and_a_silent_one_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says something is alive, however long it takes in all."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    child = importlib.import_module("child")
    code = "import time\nfor number in range(12):\n print(number, flush=True); time.sleep({})"
    told: list[float] = []
    slow = [sys.executable, "-c", code.format(0.25)]
    with child.Child("script", slow, log=tmp_path / "slow.log") as running:
        running.wait_for_end(silent_seconds=2.0, tell=told.append)
    assert told[-1] > 2.0
    with (
        child.Child("script", [sys.executable, "-c", code.format(60)], log=tmp_path / "silent.log") as running,
        pytest.raises(child.ChildSilent, match="said nothing for 2 s"),
    ):
        running.wait_for_end(silent_seconds=2.0)


def test_the_bill_says_that_an_unknown_price_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    bill = importlib.import_module("bill")
    paid = bill.PaidTeacher(seller="openai", model="gpt-nobody")
    usage = (Usage(input_tokens=10, output_tokens=20),)
    leg = bill.Leg(name="run 2", rows=3, bought=(), replayed=usage, teacher_moved=0, seconds=1.0)
    console = Console(file=io.StringIO(), width=100)
    console.print(bill.bill([leg], paid, "calls"))
    console.print(bill.at_scale(leg, paid))
    output = console.file.getvalue()
    assert "unknown" in output
    assert "no known price" in paid.describe()
    assert "is unknown: the paid teacher's price is" in output


@pytest.mark.asyncio
async def test_the_local_teacher_says_what_to_do_where_it_is_not_installed(tmp_path: Path) -> None:
    # -I -S: a Python without site-packages, whatever is installed in this one.
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *["-I", "-S", str(EXAMPLES / "local_teacher.py")],
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await asyncio.wait_for(process.communicate(), SECONDS)
    assert process.returncode == 1
    assert b"make demo" in error
