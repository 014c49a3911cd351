"""Runs of the job, in new processes."""

import contextlib
import signal
from collections.abc import Sequence
from pathlib import Path

from tests.trainhooks.conftest import Job, Zygote
from tests.trainhooks.resume.cell import Cell
from tests.trainhooks.resume.compare import differences

JOB = Path(__file__).with_name("job.py")
TOTAL = 24


def start(zygote: Zygote, out: Path, cell: Cell, kill: str = "never", *faults: str) -> Job:
    """Start the job; see there what the arguments mean."""
    out.mkdir(exist_ok=True)
    return zygote.run(JOB, out, cell.encode(), kill, *faults, output=out / "output.txt")


def end(job: Job, *, is_killed: bool = False) -> None:
    """Wait until it has ended, or killed itself; its workers go with it."""
    code = job.wait(120)
    if is_killed:
        with contextlib.suppress(ProcessLookupError):
            job.signal_group(signal.SIGKILL)
    assert code == (-signal.SIGKILL if is_killed else 0), job.said()


def chain(zygote: Zygote, out: Path, cell: Cell, kills: Sequence[str], *faults: str) -> None:
    """Run a job that is killed and started again until it ends. Faults are planted where it is resumed."""
    planted: Sequence[str] = ()
    for kill in kills:
        end(start(zygote, out, cell, kill, *planted), is_killed=True)
        planted = faults
    end(start(zygote, out, cell, "never", *planted))


def compare(zygote: Zygote, path: Path, cell: Cell, kills: Sequence[str]) -> list[str]:
    """Run a cell without kills and, beside it, with them; returns what differs."""
    whole = start(zygote, path / "whole", cell)
    chain(zygote, path / "killed", cell, kills)
    end(whole)
    return differences(path / "whole", path / "killed")
