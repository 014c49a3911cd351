"""A training that was killed, once or again and again, ends as one that was not: bit for bit, in new processes."""

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainhooks.conftest import Zygote
from tests.trainhooks.resume.cell import LOOPS, Cell, full, pairwise
from tests.trainhooks.resume.compare import differences
from tests.trainhooks.resume.runs import TOTAL, chain, compare, end, start
from trainhooks.storage import session


def kills(cell: Cell, seed: int) -> list[str]:
    """Where a cell is killed: each time later, one time in three first within a save."""
    draw = random.Random(f"{cell}{seed}")
    moments = [f"step:{step}" for step in sorted(draw.sample(range(2, TOTAL - 1), cell.resumes))]
    if draw.random() < 1 / 3:
        moments[0] = f"sync:{draw.randint(3, 14)}"  # a save syncs about ten files and directories
    return moments


@pytest.mark.parametrize("cell", pairwise(), ids=str)
def test_killed_equals_uninterrupted(zygote: Zygote, tmp_path: Path, cell: Cell) -> None:
    assert compare(zygote, tmp_path, cell, kills(cell, 0)) == []
    assert verdicts(tmp_path / "killed") <= {"exact", "no difference found"}


FEW = [
    Cell(order="late", accumulate=4, held=True, evaluates=True),
    Cell(order="start", accumulate=4, data="weighted", workers=2, held=True, named=True),
    Cell(order="usual", wrapped=True, named=True, evaluates=True, accumulate=4, optimizer="two"),
]
REST = [pytest.param(cell, marks=pytest.mark.soak) for cell in pairwise(1, LOOPS)]


@pytest.mark.parametrize("cell", [*FEW, *REST], ids=str)
def test_whatever_the_loop_does_beside(zygote: Zygote, tmp_path: Path, cell: Cell) -> None:
    assert compare(zygote, tmp_path, cell, kills(cell, 0)) == []
    assert verdicts(tmp_path / "killed") <= {"exact", "no difference found"}


def verdicts(out: Path) -> set[str]:
    """What the certificates of all attempts say."""
    members = session.read(out / "progress" / session.NAME)
    assert members is not None
    return {each["certificate"]["verdict"] for each in members["attempts"] if "certificate" in each}


@pytest.mark.parametrize("moment", [1, 12, 13, 23])
def test_any_moment_will_do(zygote: Zygote, tmp_path: Path, moment: int) -> None:
    """Before the first checkpoint, at an epoch's last and first step, in the last of all; a checkpoint at each step."""
    every = 1 if moment in (12, 13) else 2
    assert compare(zygote, tmp_path, Cell(accumulate=4, every=every, workers=2), [f"step:{moment}"]) == []


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("data", ["weighted", "buckets", "joined"])
def test_the_user_s_own_order_is_continued(zygote: Zygote, tmp_path: Path, data: str, workers: int) -> None:
    """Killed within an epoch and at the end of one: 7 or 8 batches are an epoch of the samplers."""
    cell = Cell(data=data, workers=workers, every=1, scheduler="plateau")
    assert compare(zygote, tmp_path, cell, ["step:7", "step:8", "step:16"]) == []
    assert verdicts(tmp_path / "killed") <= {"exact", "no difference found"}


PLAIN, WORKERS, STREAMS = Cell(accumulate=4), Cell(workers=2), Cell(data="stateful", workers=2)
SENSITIVE = {
    "random_numbers_not_restored": PLAIN,
    "numpy_not_restored": PLAIN,
    "position_off_by_one": PLAIN,
    "open_window_dropped": PLAIN,
    "scheduler_forgotten": PLAIN,
    "samples_draw_from_the_training": PLAIN,
    "samples_not_seeded": WORKERS,
    "generator_shared": WORKERS,
    "round_robin_forgotten": STREAMS,
}


@pytest.fixture(scope="module")
def wholes(_zygote: Zygote, tmp_path_factory: pytest.TempPathFactory) -> dict[Cell, Path]:
    """The uninterrupted runs of the cells in which faults are planted."""
    paths = {cell: tmp_path_factory.mktemp("whole") for cell in (PLAIN, WORKERS, STREAMS)}
    for job in [start(_zygote, path, cell) for cell, path in paths.items()]:
        end(job)
    return paths


@pytest.mark.parametrize("fault", SENSITIVE)
def test_a_planted_fault_is_noticed(zygote: Zygote, tmp_path: Path, wholes: dict[Cell, Path], fault: str) -> None:
    """Without these the tests above could be blind."""
    cell = SENSITIVE[fault]
    chain(zygote, tmp_path, cell, ["step:10"], fault)
    assert differences(wholes[cell], tmp_path)


FRESH = """
import random
import numpy, torch
print(torch.initial_seed(), hash(random.getstate()), hash(numpy.random.get_state()[1].tobytes()))
"""


def test_a_fork_of_the_zygote_has_random_numbers_of_its_own(zygote: Zygote, tmp_path: Path) -> None:
    """As a new interpreter has: were they the zygote's, a resume that forgets to restore them would look exact."""
    script = tmp_path / "fresh.py"
    script.write_text(FRESH)
    said = []
    for number in range(2):
        job = zygote.run(script, output=tmp_path / f"{number}.txt")
        assert job.wait() == 0
        said.append(job.said().split())
    said.append(subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout.split())
    assert [len(set(each)) for each in zip(*said, strict=True)] == [3, 3, 3]


@pytest.mark.soak
def test_every_combination(zygote: Zygote, tmp_path: Path) -> None:
    """Every combination of eight fields; an hour on 2 cores.

    TRAINHOOKS_SEED draws their order, the other fields and the moments of the kills. TRAINHOOKS_SOAK_STATE names a file
    of the cells that are done, with which a run that was cut off goes on.
    """
    seed = int(os.environ.get("TRAINHOOKS_SEED", "0"))
    state = Path(os.environ.get("TRAINHOOKS_SOAK_STATE", tmp_path / "finished.txt"))
    finished = set(state.read_text().splitlines()) if state.exists() else set()
    failed = []
    for number, cell in enumerate(full(seed)):
        name = f"{seed} {cell}"
        if name in finished:
            continue
        place = tmp_path / str(number)
        place.mkdir()
        if found := compare(zygote, place, cell, kills(cell, seed)):
            failed.append(f"{cell} {kills(cell, seed)}: {found[:3]}")
            continue
        shutil.rmtree(place)
        with state.open("a") as file:
            file.write(name + "\n")
    assert not failed
