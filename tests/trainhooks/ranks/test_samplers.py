"""Samplers of the user's with two real ranks, killed and resumed: dealt out in turn, or kept where each has its own."""

import json
import signal
from pathlib import Path

import pytest

from tests.trainhooks.ranks.conftest import Start

JOB = Path(__file__).with_name("job_samplers.py")
KINDS = ["weighted", "distributed", "batches", "rank-aware", "rank-aware unnamed"]


def traces(out: Path) -> list[dict[int, list[int]]]:
    """What each rank got, by step; of a step that was done again the last."""
    return [dict(map(json.loads, (out / f"trace-{rank}").read_text().splitlines())) for rank in range(2)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_training_resumes_in_its_order_and_no_sample_comes_twice(
    start: Start, tmp_path: Path, kind: str
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    team, first = start(JOB, whole, kind), start(JOB, killed, kind, 7)
    assert team.codes() == [0, 0], team.said()
    assert first.codes()[1] == -signal.SIGKILL, first.said()
    again = start(JOB, killed, kind)
    assert again.codes() == [0, 0], again.said()
    assert "from 6" in again.said()
    expected = traces(whole)
    assert traces(killed) == expected
    samples = [each for trace in expected for ids in trace.values() for each in ids]
    assert sorted(samples) == list(range(40))  # ten steps of two ranks, two samples each: one epoch
    warned = "each rank its own batches" in team.said()
    assert warned is (kind == "rank-aware unnamed")
