"""Folders of checkpoints as people report them: the newest is the last by number, whatever its shape."""

from pathlib import Path

import pytest
import torch

from trainhooks.recovery import recover

REPORTED = {
    "padding that a longer run widened": ["100000.pt", "0900000.pt"],
    "padding of two runs": ["100000.pt", "09000000.pt"],
    "a word behind the number": ["iter-960000-ckpt.pth", "iter-1000000-ckpt.pth"],
    "underscores": ["step_500.pt", "step_2500.pt"],
    "epochs past nine": ["epoch_9.pt", "epoch_10.pt"],
    "an epoch and a step that begins anew": ["model_epoch5_step1000.pt", "model_epoch6_step100.pt"],
    "a version in the model's name": ["resnet50_v2_900.pth", "resnet50_v2_1000.pth"],
    "a size in the model's name": ["llama-7b-step-900.pt", "llama-7b-step-1000.pt"],
    "a loss in the name": ["epoch=9-val_loss=0.10.ckpt", "epoch=10-val_loss=0.90.ckpt"],
    "thousands with k": ["model-900000.pt", "model-1000000.pt"],
}


@pytest.mark.parametrize("names", REPORTED.values(), ids=REPORTED)
@pytest.mark.parametrize("is_older_first", [True, False], ids=["in-order", "copied-backwards"])
def test_the_last_one_is_chosen_by_number(tmp_path: Path, names: list[str], is_older_first: bool) -> None:
    for name in names if is_older_first else reversed(names):
        torch.save({"weight": torch.ones(1)}, tmp_path / name)
    last = recover(tmp_path).last_checkpoint
    assert last is not None
    assert last.path.name == names[-1]
