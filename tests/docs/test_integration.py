"""docs/integration.md, executed: every block in the page's order, in one folder, each in a process of its own."""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdproxy.testing.proxy import RunningProxy
from kdproxy.testing.teacher import ScriptedTeacher
from trainhooks import read_metrics

PAGE = Path(__file__).resolve().parents[2] / "docs" / "integration.md"
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
SCRIPTS = {text.split("\n", 1)[0].removeprefix("# "): text for kind, text in BLOCKS if kind == "python"}
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    for name, text in SCRIPTS.items():
        (folder / name).write_text(text)
    return folder


def run(work: Path, *command: str) -> str:
    """Run a command of the page's reader and return what it printed."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "250"}
    done = subprocess.run(command, cwd=work, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_blocks_are_known() -> None:
    """A block that no test below runs would be a promise alone."""
    assert {kind for kind, _ in BLOCKS} == {"python", "sh"}
    assert list(SCRIPTS) == [
        "plain.py",
        "records.py",
        "exact.py",
        "own_loader.py",
        "ask.py",
        "hugging_face.py",
        "lightning.py",
        "back.py",
        "look.py",
    ]


@pytest.mark.parametrize("name", ["plain.py", "own_loader.py"])
def test_a_script_runs(work: Path, name: str) -> None:
    run(work, "python", name)


def test_records(work: Path) -> None:
    run(work, "python", "records.py")
    assert [row["step"] for row in read_metrics(work / "runs" / "records")] == list(range(100))
    assert json.loads(run(work, "trainhooks", "status", "runs/records", "--json"))["state"] == "closed"


def test_a_killed_script_continues_to_the_same_end(work: Path, tmp_path: Path) -> None:
    name = "exact.py"
    (tmp_path / name).write_text(SCRIPTS[name])
    run(tmp_path, "python", name)
    record = "        progress.update_metrics("
    kill = "        import os\n        step == 60 and os.kill(os.getpid(), 9)\n"
    (work / "killed.py").write_text(SCRIPTS[name].replace(record, kill + record))
    killed = subprocess.run([sys.executable, "killed.py"], cwd=work, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    run(work, "python", name)
    both = [at / "runs" / "exact" for at in (work, tmp_path)]
    rows = [[(row["step"], row["loss"], row.get("val_loss")) for row in read_metrics(at)] for at in both]
    assert rows[0] == rows[1]
    assert len(rows[0]) == 100
    weights = [(at / "checkpoints" / "step-000000100" / "model.safetensors").read_bytes() for at in both]
    assert weights[0] == weights[1]


@pytest.mark.asyncio
async def test_the_teacher_is_paid_once(work: Path, proxy: RunningProxy, teacher: ScriptedTeacher) -> None:
    environment = {**os.environ, "OPENAI_BASE_URL": proxy.base_url, "OPENAI_API_KEY": "of-the-test"}
    answers = []
    for _ in range(2):
        script = await asyncio.create_subprocess_exec(sys.executable, "ask.py", cwd=work, env=environment)
        assert await script.wait() == 0
        answers.append((work / "answers.jsonl").read_text())
    assert len(answers[0].splitlines()) == 2
    assert answers[0] == answers[1]
    assert teacher.count("/chat/completions") == 2


@pytest.mark.parametrize(("name", "last"), [("hugging_face", 12), ("lightning", 16)])
def test_trainers(work: Path, name: str, last: int) -> None:
    run(work, "python", f"{name}.py")
    rows = read_metrics(work / "runs" / name)
    assert rows[-1]["step"] == last - 1
    assert (work / "runs" / name / "progress" / "session.json").is_file()


def test_commands_and_what_comes_after_a_training(work: Path) -> None:
    for name in ("records", "exact"):
        if not (work / "runs" / name).exists():
            run(work, "python", f"{name}.py")
    assert "exact (trainhooks, 100 rows" in run(work, "python", "back.py")
    said = [run(work, *command.split()) for command in COMMANDS]
    assert [command.split()[1] for command in COMMANDS] == ["recover", "sessions", "sessions", "export", "plot"]
    assert {"records", "exact"} <= set(said[1].split())
    assert (work / "runs" / "exact" / "results" / "exact_metrics.csv").is_file()
    text = run(work, "python", "look.py")
    for part in ("All there", "lowest val/loss", "exact_dashboard.png", "exact_metrics.csv"):
        assert part in text, text
