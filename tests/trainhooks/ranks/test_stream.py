"""Data that each rank reads a part of, with a place of its own: exact on as many ranks, refused on another number."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.trainhooks.ranks.conftest import Start

JOB = Path(__file__).with_name("job_stream.py")


def steps(out: Path) -> list[dict[int, Any]]:
    """By rank: what each step got, the last time it was done."""
    lines = [(out / f"trace-{rank}").read_text().splitlines() for rank in range(2)]
    return [{step: rest for step, *rest in map(json.loads, each)} for each in lines]


@pytest.mark.parametrize("kind", ["iterable", pytest.param("stateful", marks=pytest.mark.faults), "foreign"])
def test_each_rank_continues_at_its_own_place(start: Start, tmp_path: Path, kind: str) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    team = start(JOB, whole, kind)
    assert team.codes() == [0, 0], team.said()
    first, second = steps(whole)
    epoch = [each for got in (first, second) for step in range(6) for each in got[step][0]]
    assert len(set(epoch)) == len(epoch) == 36, "the ranks share an epoch"
    assert all(first[step][1] != second[step][1] for step in first), "samples of one place differ between ranks"

    team = start(JOB, cut, kind, 8)
    assert team.codes()[1] == -signal.SIGKILL, team.said()
    team = start(JOB, cut, kind)
    assert team.codes() == [0, 0], team.said()
    assert team.said().count("from 5\n") == 2, team.said()
    assert steps(cut) == [first, second]


@pytest.mark.parametrize("kind", ["iterable", "foreign"])
def test_a_place_of_another_number_of_ranks_is_refused_by_all(start: Start, tmp_path: Path, kind: str) -> None:
    out = tmp_path / "run"
    assert start(JOB, out, kind).codes() == [0, 0]
    (out / "checkpoints" / "step-000000014").rename(tmp_path / "last")
    team = start(JOB, out, kind, world=1)
    assert team.codes() == [1], team.said()
    assert "PositionInvalid" in team.said()
    assert "ranks" in team.said()
