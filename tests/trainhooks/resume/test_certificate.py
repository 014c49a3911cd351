"""What the certificate says of real resumed trainings: one verdict, in session.json and once in what the user sees."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.trainhooks.conftest import Zygote
from tests.trainhooks.resume.cell import Cell
from tests.trainhooks.resume.runs import end, start
from trainhooks.storage import session

CELL = Cell(accumulate=1, every=6, optimizer="sgd", amp=False)


def certificate(zygote: Zygote, out: Path, resumed: Cell = CELL, kill: str = "step:10", fault: str = "") -> Any:
    """Kill a training, let it go on (changed, if so wished), and return what the second attempt says of itself."""
    end(start(zygote, out, CELL, kill), is_killed=True)
    end(start(zygote, out, resumed, "never", *([fault] if fault else [])))
    members = session.read(out / "progress" / session.NAME)
    assert members is not None
    return members["attempts"][-1]["certificate"]


def told(out: Path) -> list[str]:
    return [line for line in (out / "output.txt").read_text().splitlines() if line.startswith("resumed at step")]


def verdict(said: Any) -> tuple[str, int | None, str | None]:
    return said["verdict"], said.get("first_step"), said.get("field")


def test_exact(zygote: Zygote, tmp_path: Path) -> None:
    assert certificate(zygote, tmp_path) == {
        "verdict": "exact",
        "from_step": 6,
        "compared_steps": 4,
        "recorded_steps": 4,
        "compared": ["batch", "random numbers", "loss", "parameters"],
        "at_start": ["state", "batch ids", "random numbers"],
    }
    line = "resumed at step 6: exact (state, batch ids, random numbers; 4 of 4 recorded steps compared)"
    assert told(tmp_path) == [line]
    command = [sys.executable, "-c", "from trainhooks.cli.main import main; main()", "status", str(tmp_path)]
    status = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"last resume {line}" in " ".join(status.stdout.split())


def test_killed_in_the_first_step_after_a_save(zygote: Zygote, tmp_path: Path) -> None:
    said = certificate(zygote, tmp_path, kill="step:6")
    assert (said["verdict"], said["recorded_steps"]) == ("no difference found", 0)
    assert said["at_start"] == ["state", "batch ids", "batch", "random numbers"]
    assert told(tmp_path)[0].endswith("(state, batch ids, batch, random numbers; no loss recorded)")


def test_same_data_numerics_differ(zygote: Zygote, tmp_path: Path) -> None:
    said = certificate(zygote, tmp_path, fault="other_kernels")
    assert verdict(said) == ("same data, numerics differ", 6, "loss")
    assert said["difference"].startswith("loss: was ")
    assert said["compared_steps"] == 4
    assert len(told(tmp_path)) == 1


@pytest.mark.parametrize(
    ("changed", "fault", "step", "field"),
    [
        (CELL, "position_off_by_one", 6, "batch ids"),
        (CELL, "learning_rate_changed", 6, "state"),
        (CELL, "scheduler_forgotten", 6, "state"),
        (CELL, "optimizer_state_dropped", 6, "state"),
        (CELL, "generator_shared", 6, "random numbers"),
        (CELL, "samples_not_seeded", 6, "batch"),
        (CELL, "random_numbers_not_restored", 6, "random numbers"),
        (replace(CELL, dropout=False), "", 6, "loss"),
    ],
    ids=[
        "other-position",
        "other-rate",
        "other-schedule",
        "no-moments",
        "drawn-from",
        "other-seeds",
        "other-random-numbers",
        "other-dropout",
    ],
)
def test_diverged(zygote: Zygote, tmp_path: Path, changed: Cell, fault: str, step: int, field: str) -> None:
    said = certificate(zygote, tmp_path, changed, kill="step:11", fault=fault)
    assert verdict(said) == ("diverged", step, field)
    assert len(told(tmp_path)) == 1
