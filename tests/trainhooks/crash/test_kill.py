"""SIGKILL while a checkpoint is written, published or deleted: the newest good one is always found, and is whole."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.trainhooks.conftest import Zygote

JOB = Path(__file__).with_name("job.py")


@pytest.fixture(scope="module")
def saving(zygote_with: Callable[..., Zygote]) -> Zygote:
    return zygote_with("trainhooks.pytorch.checkpoint.saver")


def run(saving: Zygote, root: Path, *argv: object) -> tuple[int, str]:
    output = root / "output"
    output.unlink(missing_ok=True)
    job = saving.run(JOB, root, *argv, output=output)
    return job.wait(), job.said()


def kill_at_random(saving: Zygote, root: Path, count: int, seed: int) -> None:
    """Kill `count` trainings that go on from each other; each start checks what the last kill has left."""
    chance = random.Random(seed)
    announced = root / "announced"
    for number in range(count):
        output = root / f"output-{number}"
        before = announced.stat().st_size if announced.exists() else 0
        job = saving.run(JOB, root, output=output)
        job.until(lambda: job.poll() is not None or (announced.exists() and announced.stat().st_size > before))  # noqa: B023
        time.sleep(chance.random() * 0.05)  # a save takes some 10 ms here: this may end anywhere in it
        job.signal_group(signal.SIGKILL)
        assert job.wait() == -signal.SIGKILL, job.said()
    code, said = run(saving, root, 0)
    assert code == 0, said


def kill_at_each(saving: Zygote, root: Path, how: str, *, every: int = 1) -> int:
    """Kill at one operation after the other; returns how many kills that were."""
    code, said = run(saving, root, 0)
    assert code == 0, said
    operations = int(said.rpartition("operations ")[2])
    assert operations > 30
    points = range(1, operations + 1, every)
    for point in points:
        code, said = run(saving, root, point, how)
        assert code == -signal.SIGKILL, f"at operation {point}: {said}"
        code, said = run(saving, root, 0)
        assert code == 0, f"after a kill at operation {point}: {said}"
    return len(points)


def test_killed_at_fifteen_points_of_a_save(saving: Zygote, tmp_path: Path) -> None:
    assert kill_at_each(saving, tmp_path, "before", every=5) >= 8
    kill_at_random(saving, tmp_path, 7, seed=1)


@pytest.mark.faults
@pytest.mark.parametrize("how", ["before", "half"])
def test_killed_at_every_operation_of_a_save(saving: Zygote, tmp_path: Path, how: str) -> None:
    kill_at_each(saving, tmp_path, how)


@pytest.mark.faults
def test_killed_sixty_times_at_random(saving: Zygote, tmp_path: Path) -> None:
    kill_at_random(saving, tmp_path, 60, seed=2)


@pytest.mark.soak
def test_killed_six_hundred_times_at_random(saving: Zygote, tmp_path: Path) -> None:
    kill_at_random(saving, tmp_path, 600, seed=3)
