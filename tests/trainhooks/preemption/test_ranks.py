"""Two ranks: one is told to go, both leave after the same step, and go on exactly, with as many ranks or with fewer."""

import os
import signal
import socket
from pathlib import Path
from typing import Any

JOB = Path(__file__).with_name("job_ranks.py")


def start(zygote: Any, out: Path, world: int) -> list[Any]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    env = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return [
        zygote.run(JOB, out, output=out.with_name(f"{out.name}-{rank}"), env={**env, "RANK": str(rank)})
        for rank in range(world)
    ]


def codes(jobs: list[Any]) -> list[int]:
    return [job.wait(120) for job in jobs]


def ids(out: Path, rank: int) -> list[list[int]]:
    path = out / f"ids-{rank}"
    return [[int(each) for each in line.split()] for line in path.read_text().splitlines()] if path.exists() else []


def preempted(zygote: Any, out: Path) -> None:
    """Train on two ranks and signal one of them somewhere after its fifth step."""
    jobs = start(zygote, out, 2)
    jobs[0].until(lambda: len(ids(out, 0)) >= 5)
    os.kill(jobs[1].pid, signal.SIGTERM)
    assert codes(jobs) == [75, 75], jobs[0].said() + jobs[1].said()
    assert len(ids(out, 0)) == len(ids(out, 1)) < 16, "after the same step, in the first epoch"


def test_one_rank_is_signalled_both_leave_and_continue_exactly(zygote: Any, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert codes(start(zygote, whole, 2)) == [0, 0]
    preempted(zygote, cut)
    assert codes(start(zygote, cut, 2)) == [0, 0]
    for rank in range(2):
        assert ids(cut, rank) == ids(whole, rank)
        assert (cut / f"final-{rank}").read_text() == (whole / f"final-{rank}").read_text()


def test_on_fewer_ranks_no_sample_is_repeated_or_left_out(zygote: Any, tmp_path: Path) -> None:
    out = tmp_path / "run"
    preempted(zygote, out)
    before = [each for step in ids(out, 0) + ids(out, 1) for each in step]
    (out / "ids-0").unlink()
    jobs = start(zygote, out, 1)
    assert codes(jobs) == [0], jobs[0].said()
    after = [each for step in ids(out, 0) for each in step][: 96 - len(before)]
    assert sorted(before + after) == list(range(96))
