"""Checkpoints of DeepSpeed and FSDP: which is the last, read where one file has all, else its converter is named."""

import pickle
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from trainhooks.errors import TrainhooksError
from trainhooks.recovery import recover


class Boom:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("executed"),))


def deepspeed(root: Path, steps: list[int], *, module: Any = None, ranks: int = 1, latest: str | None = None) -> Path:
    for step in steps:
        tag = root / f"global_step{step}"
        tag.mkdir(parents=True)
        weights = nn.Linear(2, 1).state_dict() if module is None else module
        with torch.no_grad():
            for each in weights.values():
                each.fill_(step)
        for rank in range(ranks):
            torch.save({"module": weights, "global_steps": step}, tag / f"mp_rank_0{rank}_model_states.pt")
        torch.save({"optimizer_state_dict": {}}, tag / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt")
    (root / "latest").write_text(f"global_step{steps[-1]}" if latest is None else latest)
    (root / "zero_to_fp32.py").write_text("raise SystemExit('not to be run')\n")
    return root


def test_the_last_one_of_deepspeed_is_chosen_by_number_and_read(tmp_path: Path) -> None:
    run = recover(deepspeed(tmp_path / "out", [900, 1000, 5000]))
    assert [each.step for each in run.checkpoints] == [900, 1000, 5000]
    assert run.last_checkpoint is not None
    assert run.last_checkpoint.path.name == "global_step5000"
    assert run.load_model(nn.Linear(2, 1)).weight.tolist() == [[5000.0, 5000.0]]
    assert run.gaps == () or not any("latest" in gap for gap in run.gaps)


def test_where_latest_names_another_it_is_reported(tmp_path: Path) -> None:
    run = recover(deepspeed(tmp_path / "out", [1000, 2000], latest="global_step1000"))
    assert any("`latest` names global_step1000, and the last by number is global_step2000" in gap for gap in run.gaps)


def test_the_folder_of_one_step_is_known_too(tmp_path: Path) -> None:
    root = deepspeed(tmp_path / "out", [10, 20])
    assert recover(root / "global_step10").load_model(nn.Linear(2, 1), which="last").bias.item() == 20.0


@pytest.mark.parametrize(
    "given",
    [
        {"module": {"weight": torch.zeros(0), "bias": torch.zeros(0)}},  # ZeRO 3
        {"ranks": 2},  # model parallel
    ],
    ids=["zero-3", "model-parallel"],
)
def test_what_is_spread_over_processes_names_deepspeeds_script(tmp_path: Path, given: dict[str, Any]) -> None:
    run = recover(deepspeed(tmp_path / "out", [10], **given))
    with pytest.raises(TrainhooksError, match=r"spread over the files of several processes.*zero_to_fp32\.py"):
        run.load_model(nn.Linear(2, 1))


def test_objects_in_deepspeeds_files_are_not_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root = deepspeed(tmp_path / "out", [10])
    (root / "global_step10/mp_rank_00_model_states.pt").write_bytes(pickle.dumps({"module": Boom()}, protocol=2))
    with pytest.raises(TrainhooksError, match=r"zero_to_fp32\.py"):
        recover(root).load_model(nn.Linear(2, 1))
    assert not (tmp_path / "executed").exists()


def distributed(path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dcp.save(nn.Linear(2, 1).state_dict(), checkpoint_id=path, no_dist=True)
    return path


@pytest.mark.parametrize("names", [["step-900", "step-1000"], ["epoch=0-step=5.ckpt", "epoch=1-step=10.ckpt"]], ids=str)
def test_shards_of_torch_are_ordered_and_name_torchs_converter(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        distributed(tmp_path / "out" / name)
    run = recover(tmp_path / "out")
    assert run.last_checkpoint is not None
    assert run.last_checkpoint.path.name == names[-1]
    with pytest.raises(TrainhooksError, match=r"format_utils dcp_to_torch .*OUTPUT\.pt"):
        run.load_model(nn.Linear(2, 1))


def test_the_metadata_of_shards_is_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (distributed(tmp_path / "out/step-5") / ".metadata").write_bytes(pickle.dumps(Boom()))
    with pytest.raises(TrainhooksError, match="is not read"):
        recover(tmp_path / "out").load_model(nn.Linear(2, 1))
    assert not (tmp_path / "executed").exists()


def trainer(root: Path) -> Path:
    (root / "checkpoint-5").mkdir(parents=True)
    (root / "checkpoint-5/trainer_state.json").write_text('{"log_history": [{"step": 5, "loss": 1.0}], "max_steps": 5}')
    return root / "checkpoint-5"


@pytest.mark.parametrize("kind", ["fsdp", "deepspeed", "full"])
def test_a_trainers_checkpoint_with_shards_inside(tmp_path: Path, kind: str) -> None:
    folder = trainer(tmp_path / "out")
    model = nn.Linear(2, 1)
    match kind:
        case "fsdp":
            distributed(folder / "pytorch_model_fsdp_0")
            with pytest.raises(TrainhooksError, match=r"dcp_to_torch .*pytorch_model_fsdp_0"):
                recover(tmp_path / "out").load_model(model)
        case "deepspeed":
            deepspeed(folder, [5])
            assert recover(tmp_path / "out").load_model(model).bias.item() == 5.0
        case _:
            torch.save({"weight": torch.full((1, 2), 3.0), "bias": torch.zeros(1)}, folder / "pytorch_model_fsdp.bin")
            assert recover(tmp_path / "out").load_model(model).weight.tolist() == [[3.0, 3.0]]
