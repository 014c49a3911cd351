"""A model that is sharded over the ranks (FSDP2): saved in parts, resumed to the bit, on other numbers of ranks too."""

import json
import shutil
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp

from tests.trainhooks.ranks.bits import digest
from tests.trainhooks.ranks.conftest import Start
from trainhooks.errors import CheckpointInvalid
from trainhooks.pytorch.checkpoint.reader import CheckpointReader
from trainhooks.recovery import weights
from trainhooks.recovery.found import SavedModel
from trainhooks.storage.checkpoints import CheckpointStore
from trainhooks.storage.verification import verify

JOB = Path(__file__).with_name("job_sharded.py")


def texts(out: Path, name: str, world: int = 2) -> list[Any]:
    return [(out / f"{name}-{rank}").read_text() for rank in range(world)]


def last_time(trace: str) -> dict[int, Any]:
    """What each step computed, the last time it was done."""
    return {step: rest for step, *rest in map(json.loads, trace.splitlines())}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs that several tests look at; each is made by who wants it first."""
    return tmp_path_factory.mktemp("runs")


def whole(start: Start, runs: Path) -> Path:
    """An uninterrupted training of two ranks."""
    out = runs / "whole"
    if not out.exists():
        team = start(JOB, out)
        assert team.codes() == [0, 0], team.said()
    return out


def cut(start: Start, runs: Path, root: Path, name: str, world: int = 2) -> Path:
    """A copy of a training that was killed in its fifth step, inside an accumulation window, saved after its third."""
    out = runs / f"cut-{world}"
    if not out.exists():
        team = start(JOB, out, world - 1, 4, world=world)
        assert team.codes()[-1] == -signal.SIGKILL, team.said()
    copied = root / name
    shutil.copytree(out, copied)
    return copied


@pytest.mark.parametrize("how", [pytest.param("synchronous", marks=pytest.mark.faults), "asynchronous"])
def test_killed_and_resumed_it_ends_as_the_uninterrupted_one_did(
    start: Start, runs: Path, tmp_path: Path, how: str
) -> None:
    out = tmp_path / "killed"
    for kill_rank, kill_step, begin in ((1, 4, 0), (0, 8, 3), ("none", 0, 6)):
        argv = () if kill_rank == "none" else (kill_rank, kill_step)
        team = start(JOB, out, *argv, HOW=how)
        codes = team.codes()
        assert all(code != 0 for code in codes) if argv else codes == [0, 0], team.said()
        assert team.said().count(f"from {begin}\n") == 2, team.said()
    assert texts(out, "final") == texts(whole(start, runs), "final")
    for mine, other in zip(texts(out, "trace"), texts(runs / "whole", "trace"), strict=True):
        assert last_time(mine) == last_time(other)


@pytest.mark.parametrize(("saved", "resumed"), [(2, 1), (2, 3), (1, 2)])
def test_on_another_number_of_ranks_it_continues_from_the_same_state(
    start: Start, runs: Path, tmp_path: Path, saved: int, resumed: int
) -> None:
    """Weights, optimizer, scheduler and the gradients of the open window, put together over the ranks."""
    same, other = (cut(start, runs, tmp_path, name, saved) for name in ("same", "other"))
    for out, world in ((same, saved), (other, resumed)):
        team = start(JOB, out, world=world, TOTAL=4)
        assert team.codes() == [0] * world, team.said()
        assert team.said().count("from 3\n") == world, team.said()
    [wanted] = set(texts(same, "loaded", saved))
    assert set(texts(other, "loaded", resumed)) == {wanted}


def test_every_byte_is_vouched_for_and_nothing_is_pickled(start: Start, runs: Path, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(whole(start, runs), root)
    store = CheckpointStore(root / "checkpoints", "any")
    newest = store.newest_good()
    assert newest is not None
    assert newest.manifest.world == 2
    names = set(newest.manifest.files)
    assert {Path(name).suffix for name in names} == {".json", ".safetensors"}
    assert {
        f"sharded/rank-0000{rank}.{part}.safetensors" for rank in range(2) for part in ("model", "optimizer")
    } < names
    for path in [newest.path / name for name in sorted(names) if name.startswith("sharded/")]:
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(CheckpointInvalid, match="SHA-256"):
            verify(newest.path)
        path.write_bytes(good)
    path.unlink()
    found = store.newest_good()
    assert found is not None
    assert (newest.manifest.step, found.manifest.step) == (11, 9)


def test_parts_that_do_not_make_up_a_tensor_are_not_published(start: Start, tmp_path: Path) -> None:
    team = start(JOB, tmp_path / "run", HOW="incomplete", TOTAL=4)
    assert all(team.codes()), "the training is done and not saved: each rank ends with that"
    assert "model: the ranks together do not have the whole of layers.0.0.weight" in team.jobs[0].said()
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_torch_and_the_recovery_read_the_whole_of_it_in_one_process(start: Start, runs: Path, tmp_path: Path) -> None:
    out = cut(start, runs, tmp_path, "run")
    team = start(JOB, out, world=1, TOTAL=4)
    assert team.codes() == [0], team.said()
    wanted = json.loads((out / "loaded-0").read_text())[0]["model"]
    path = out / "checkpoints" / "step-000000003"
    recovered = weights.read(SavedModel(path=path, step=3, is_ours=True))
    taken = {name: torch.empty_like(tensor) for name, tensor in recovered.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that it takes this for one process
        reader = CheckpointReader(path, "model")
        dcp.load({"seen": torch.empty_like(taken["seen"])}, storage_reader=reader)
        dcp.load(taken, storage_reader=reader)
    [names] = json.loads((path / "state.json").read_bytes())["objects"]["model"]["tree"].values()
    for found in (recovered, taken):
        assert digest({name: found[name] for name, _ in names}) == wanted
