"""`trainhooks rehearse`: real commands that are killed, resumed and compared, and the codes that it ends with."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.trainhooks.conftest import Zygote
from trainhooks.core.rehearsal import VARIABLE, Plan, Result, judge
from trainhooks.storage import metrics, session
from trainhooks.storage.rehearsal import KILLED

JOB = Path(__file__).with_name("job_rehearse.py")
TRAINHOOKS = [sys.executable, "-c", "from trainhooks.cli.main import main; main()", "rehearse"]


def rehearse(scratch: Path, *given: object) -> subprocess.CompletedProcess[str]:
    command = [*TRAINHOOKS, "--scratch", str(scratch), *map(str, given)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_command_is_killed_resumed_and_compared(tmp_path: Path) -> None:
    out = tmp_path / "real"
    done = rehearse(tmp_path, "--steps", "6", "--kill-at", "4", "--", sys.executable, JOB, out)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("rehearsal: exact (steps 2 to 5 after the resume: batch, ")
    assert "unless kdproxy answers them" in done.stderr
    assert "resumed at step 2: exact" in done.stderr
    assert [*tmp_path.iterdir()] == [], "neither the real output directory nor anything beside it"


def follow(zygote: Zygote, tmp_path: Path, plan: Plan, *words: str) -> int:
    Path(plan.directory).mkdir(exist_ok=True)
    env = {VARIABLE: plan.encode()}
    return zygote.run(JOB, tmp_path / "real", *words, output=tmp_path / "output.txt", env=env).wait()


def test_a_state_that_is_not_restored_is_named(zygote: Zygote, tmp_path: Path) -> None:
    """The same three starts, without the command that makes them: a new interpreter each takes three seconds."""
    plan = Plan(directory=str(tmp_path / "killed"), steps=6, save_at=2, kill_at=4)
    whole = Plan(directory=str(tmp_path / "whole"), steps=6, save_at=2)
    assert follow(zygote, tmp_path, plan, "forgets") == -signal.SIGKILL
    assert (tmp_path / "killed" / KILLED).exists()
    assert follow(zygote, tmp_path, plan, "forgets") == 0
    assert follow(zygote, tmp_path, whole, "forgets") == 0
    [one] = (tmp_path / "killed").glob("*-real")
    [other] = (tmp_path / "whole").glob("*-real")
    members = session.read(one / "progress" / session.NAME)
    assert members is not None
    said = members["attempts"][-1]["certificate"]
    outcome = judge(metrics.read_lines(one), metrics.read_lines(other), said)
    assert (outcome.result, outcome.step) == (Result.DIFFERS, 2)
    assert outcome.difference is not None
    assert outcome.difference.startswith("optimizer.state.0: was 1 members, is not there")
    assert judge(metrics.read_lines(one), metrics.read_lines(other)).result is Result.DIFFERS, "the rows tell too"
    assert not (tmp_path / "real").exists(), "code after the loop does not run"


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (["sh", "-c", "exit 7"], 7, "the command ended with exit code 7 before 5 steps were finished"),
        (["sh", "-c", "kill -9 $$"], 137, "the command ended with exit code 137 before"),
        (["true"], 3, "the command opened no trainhooks session with state= and steps()"),
        (["no-such-command"], 127, "command not found: no-such-command"),
    ],
)
def test_what_cannot_be_compared_ends_with_the_commands_own_code(
    tmp_path: Path, command: list[str], code: int, said: str
) -> None:
    done = rehearse(tmp_path, "--", *command)
    assert (done.returncode, said in done.stdout) == (code, True), done
    assert [*tmp_path.iterdir()] == []


def test_the_time_limit_ends_the_command_and_what_it_started(tmp_path: Path) -> None:
    script = f"sleep 60 & echo $! > {tmp_path}/pid; wait"
    done = rehearse(tmp_path, "--time-limit", "1", "--", "sh", "-c", script)
    assert done.returncode == 124
    assert "time limit reached" in done.stdout
    stat = Path("/proc") / (tmp_path / "pid").read_text().strip() / "stat"
    end = time.monotonic() + 30
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] not in "ZX":
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_signal_goes_to_the_command(tmp_path: Path) -> None:
    script = f"trap 'touch {tmp_path}/heard; exit 0' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    running = subprocess.Popen([*TRAINHOOKS, "--", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not (tmp_path / "ready").exists() and time.monotonic() < end:
        time.sleep(0.01)
    running.terminate()
    said = running.communicate(timeout=60)[0].decode()
    assert said.startswith("rehearsal: could not compare: signal 15 ended the command")
    assert running.returncode == 143
    assert (tmp_path / "heard").exists()


def test_records_alone_are_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trainer writes its checkpoints to the real directory, and a loop of records alone its own."""
    from trainhooks import ProgressTracker, training_progress_context
    from trainhooks.errors import ConfigInvalid

    plan = Plan(directory=str(tmp_path / "scratch"), steps=6, save_at=2)
    monkeypatch.setenv(VARIABLE, plan.encode())
    with pytest.raises(ConfigInvalid, match="cannot be rehearsed"):
        ProgressTracker({}, tmp_path / "real", 10)
    with pytest.raises(ConfigInvalid, match="cannot be rehearsed"), training_progress_context({}, tmp_path, 10):
        pass
    monkeypatch.setenv(VARIABLE, "old")
    with pytest.raises(ConfigInvalid, match="holds no valid plan of this release"):
        training_progress_context({}, tmp_path / "real", 10).__enter__()
    assert [*tmp_path.iterdir()] == []


def test_help_and_usage_need_no_torch(tmp_path: Path) -> None:
    script = "import sys; sys.modules['torch'] = None; from trainhooks.cli.main import main; main()"
    command = [sys.executable, "-c", script, "rehearse", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "--kill-at" in done.stdout
    assert rehearse(tmp_path, "--steps", "4", "--kill-at", "4", "--", "true").returncode == 2
