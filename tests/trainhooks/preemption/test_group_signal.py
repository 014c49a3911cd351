"""A signal to the whole group, four loader workers included, at any moment: saved, left, gone on with exactly."""

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

JOB = Path(__file__).with_name("job.py")
PHASES = ["warm-up", "step", "eval", "save", "epoch"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, _zygote: Any) -> Any:
    """What the training comes to when nobody tells it to go."""
    out = tmp_path_factory.mktemp("whole")
    job = _zygote.run(JOB, out / "run", output=out / "said")
    assert job.wait(120) == 0, job.said()
    return json.loads((out / "run" / "final.json").read_bytes())


def tell_to_go(zygote: Any, out: Path, number: signal.Signals, phase: str, rng: random.Random) -> Any:
    """Start the training and signal its group somewhere in a phase."""
    job = zygote.run(JOB, out, output=out.with_suffix(".said"))
    # The second epoch is the last: behind it there is nothing left to stop.
    times = 1 if phase in ("warm-up", "epoch") else rng.randint(1, 2)

    def is_there() -> bool:
        return (out / "phase").exists() and (out / "phase").read_text().split().count(phase) >= times

    job.until(is_there)
    time.sleep(rng.uniform(0, 0.03))
    job.signal_group(number)
    return job


def nobody_is_left(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def preempt(zygote: Any, out: Path, whole: Any, number: signal.Signals, phase: str, seed: int) -> None:
    job = tell_to_go(zygote, out, number, phase, random.Random(seed))
    assert job.wait() == 75, f"{phase}, seed {seed}: {job.said()}"
    job.until(lambda: nobody_is_left(job.pid), 10)
    session = json.loads((out / "progress" / "session.json").read_bytes())
    assert session["attempts"][-1]["end"] == f"preempted: {number.name}"
    reached = session["attempts"][-1]["step"]
    checkpoints = sorted((out / "checkpoints").glob("step-*"))
    saved = json.loads((checkpoints[-1] / "manifest.json").read_bytes())["step"] if checkpoints else 0
    assert saved == reached, "what was done when the signal was served is saved"
    job = zygote.run(JOB, out, output=out.with_suffix(".said"))
    assert job.wait() == 0, job.said()
    assert json.loads((out / "final.json").read_bytes()) == whole, f"{phase}, seed {seed}"


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_the_group_saves_and_leaves(
    zygote: Any, tmp_path: Path, whole: Any, phase: str, number: signal.Signals
) -> None:
    preempt(zygote, tmp_path / "run", whole, number, phase, seed=PHASES.index(phase) + number)


@pytest.mark.faults
@pytest.mark.parametrize("seed", range(100))
def test_a_hundred_signals_to_the_group(zygote: Any, tmp_path: Path, whole: Any, seed: int) -> None:
    preempt(zygote, tmp_path / "run", whole, signal.SIGTERM, PHASES[seed % len(PHASES)], seed)


def test_ctrl_c_is_a_keyboard_interrupt_after_the_save(zygote: Any, tmp_path: Path, whole: Any) -> None:
    out = tmp_path / "run"
    job = tell_to_go(zygote, out, signal.SIGINT, "eval", random.Random(1))
    assert job.wait() in (1, 130, -signal.SIGINT), job.said()
    assert "KeyboardInterrupt" in job.said()
    assert sorted((out / "checkpoints").glob("step-*"))
    job = zygote.run(JOB, out, output=tmp_path / "said")
    assert job.wait() == 0, job.said()
    assert json.loads((out / "final.json").read_bytes()) == whole
