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


def test_exact(zygote: Zygote, tmp_path: Path) -> None:
    assert certificate(zygote, tmp_path) == {
        "verdict": "exact",
        "from_step": 6,
        "compared_steps": 4,
        "recorded_steps": 4,
        "compared": ["batch", "random numbers", "loss"],
    }
    line = "resumed at step 6: exact (4 of 4 recorded steps compared)"
    assert told(tmp_path) == [line]
    command = [sys.executable, "-c", "from trainhooks.cli.main import main; main()", "status", str(tmp_path)]
    status = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"last resume {line}" in " ".join(status.stdout.split())


def test_nothing_to_compare(zygote: Zygote, tmp_path: Path) -> None:
    assert certificate(zygote, tmp_path, kill="step:6")["verdict"] == "nothing to compare"


def test_same_data_numerics_differ(zygote: Zygote, tmp_path: Path) -> None:
    """The first step's loss comes before the changed rate is used."""
    said = certificate(zygote, tmp_path, fault="learning_rate_changed")
    assert (said["verdict"], said["first_step"], said["field"]) == ("same data, numerics differ", 7, "loss")
    assert told(tmp_path) == [
        "resumed at step 6: same data, numerics differ, first at step 7: loss (4 of 4 recorded steps compared)"
    ]


@pytest.mark.parametrize(
    ("changed", "fault", "step", "field"),
    [
        (CELL, "position_off_by_one", 6, "batch"),
        (CELL, "samples_not_seeded", 6, "batch"),
        (CELL, "random_numbers_not_restored", 6, "random numbers"),
        (replace(CELL, dropout=False), "", 6, "loss"),
    ],
    ids=["other-position", "other-seeds", "other-random-numbers", "other-dropout"],
)
def test_diverged(zygote: Zygote, tmp_path: Path, changed: Cell, fault: str, step: int, field: str) -> None:
    said = certificate(zygote, tmp_path, changed, kill="step:11", fault=fault)
    assert (said["verdict"], said["first_step"], said["field"]) == ("diverged", step, field)
    assert len(told(tmp_path)) == 1
