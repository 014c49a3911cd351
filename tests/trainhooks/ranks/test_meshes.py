"""Tensors that are dealt out in two dimensions: replicas are written once, strided shards come back where they were."""

from pathlib import Path

import pytest

from tests.trainhooks.ranks.conftest import Start
from trainhooks.pytorch.checkpoint.saved import SHARD, read_json
from trainhooks.storage.checkpoints import published

JOB = Path(__file__).with_name("job_meshes.py")
pytestmark = pytest.mark.faults  # four processes on a mesh


@pytest.mark.parametrize("kind", ["hsdp", "tensor"])
def test_what_four_ranks_saved_comes_back_on_each(start: Start, tmp_path: Path, kind: str) -> None:
    team = start(JOB, tmp_path / "run", kind, world=4)
    assert team.codes() == [0] * 4, team.said()
    assert team.said().count("the same") == 4
    [checkpoint] = published(tmp_path / "run")
    parts = [read_json(checkpoint.path, f"{SHARD.format(rank)}.json")["parts"]["model"] for rank in range(4)]
    assert [bool(each) for each in parts] == [True, True, kind == "tensor", kind == "tensor"]
