"""Which checkpoint is the last and which the best, in folders that others have written."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from trainhooks.recovery import recover


def save(folder: Path, names: list[str], *, newest_first: bool = True, **inside: list[int]) -> None:
    """Write one checkpoint a name; their times contradict their names unless told otherwise."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        members: dict[str, Any] = {"model": {"weight": torch.full((1, 1), float(number))}}
        members |= {key: values[number] for key, values in inside.items()}
        torch.save(members, folder / name)
        at = 1_000_000_000 + (-number if newest_first else number)
        os.utime(folder / name, (at, at))


@pytest.mark.parametrize(
    "form",
    [
        "ckpt_{}.pt",
        "model_{}.pt",
        "{}.pt",
        "ckpt-{}.pth",
        "it_{}.pt",
        "ep{}.pt",
        "ckpt.{}.pt",
        "checkpoint-{}.pth.tar",
        "checkpoint_epoch_{}.pth",
        "step={}.ckpt",
        "epoch={}-val_loss=0.25.ckpt",
        "resnet50_epoch{}.pth",
        "run7.step{}.pt",
        "iter_{}.pt.tar",
        "global_step{}.pt",
        "{}_net.pth",
        "v2_model_epoch_{}.pt",
        "best-epoch={}.ckpt",
    ],
)
def test_names_are_in_natural_order_whatever_the_times_say(tmp_path: Path, form: str) -> None:
    save(tmp_path / "run", [form.format(number) for number in (900, 1000, 2000, 10000)])
    run = recover(tmp_path / "run")
    assert run.last_checkpoint is not None
    assert run.last_checkpoint.path.name == form.format(10000)
    assert [saved.path.name for saved in run.checkpoints] == [form.format(n) for n in (900, 1000, 2000, 10000)]


def test_epoch_and_step_in_one_name(tmp_path: Path) -> None:
    names = ["epoch=1-step=900.ckpt", "epoch=2-step=1800.ckpt", "epoch=10-step=9000.ckpt"]
    save(tmp_path / "run", names)
    run = recover(tmp_path / "run")
    assert run.last_checkpoint is not None
    assert (run.last_checkpoint.path.name, run.last_checkpoint.step, run.last_checkpoint.epoch) == (names[2], 9000, 10)


@pytest.mark.parametrize("key", ["step", "global_step", "iteration", "iter_num", "n_iter", "num_updates", "epoch"])
def test_where_names_say_nothing_the_count_inside_does(tmp_path: Path, key: str) -> None:
    save(tmp_path / "run", ["last.pt", "best.pt", "other.pt"], **{key: [30, 20, 10]})
    run = recover(tmp_path / "run")
    assert run.last_checkpoint is not None
    assert run.last_checkpoint.path.name == "last.pt"
    assert run.best_checkpoint is not None
    assert run.best_checkpoint.path.name == "best.pt"


def test_where_nothing_says_it_the_time_does_and_that_is_reported(tmp_path: Path) -> None:
    save(tmp_path / "run", ["one.pt", "two.pt"], newest_first=False)
    run = recover(tmp_path / "run")
    assert run.last_checkpoint is not None
    assert run.last_checkpoint.path.name == "two.pt"
    assert any("the file written last is taken as the last one, two.pt" in gap for gap in run.gaps)


def test_the_last_one_is_loaded(tmp_path: Path) -> None:
    save(tmp_path / "run", ["ckpt_1000.pt", "ckpt_2000.pt", "ckpt_10000.pt"])
    model = recover(tmp_path / "run").load_model(torch.nn.Linear(1, 1, bias=False), "last")
    assert model.weight.item() == 2.0


def trainer_state(**members: Any) -> str:
    rows = [{"step": step, "epoch": step / 8, "loss": 1 / step, "eval_loss": 2 / step} for step in range(1, 9)]
    return json.dumps({"log_history": rows, "global_step": 8, "max_steps": 8, **members})


def hugging_face(root: Path, **members: Any) -> Path:
    for step in (4, 8):
        folder = root / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "trainer_state.json").write_text(trainer_state(**members))
    return root


def test_eight_steps_are_eight_steps(tmp_path: Path) -> None:
    assert recover(hugging_face(tmp_path / "out")).results["steps"] == 8


@pytest.mark.parametrize("path", [r"C:\runs\out\checkpoint-4", "/content/out/checkpoint-4", "out/checkpoint-4/"])
def test_the_best_one_is_known_wherever_its_path_was_written(tmp_path: Path, path: str) -> None:
    best = recover(hugging_face(tmp_path / "out", best_model_checkpoint=path, best_metric=0.5)).best_checkpoint
    assert best is not None
    assert best.path.name == "checkpoint-4"


def lightning(root: Path, table: str) -> Path:
    root.mkdir()
    (root / "metrics.csv").write_text(table)
    return root


def test_a_table_that_gains_a_column_keeps_its_rows_and_says_so(tmp_path: Path) -> None:
    run = recover(lightning(tmp_path / "out", "step,loss\n0,1.0\n1,0.9\n2,0.8,0.7\n3,0.7,0.6\n"))
    assert run.metrics_df["train/loss"].tolist() == [1.0, 0.9, 0.8, 0.7]
    assert run.metrics_df["column 3"].tolist()[2:] == [0.7, 0.6]
    assert any("2 rows of metrics.csv have more fields" in gap for gap in run.gaps)


def test_a_header_in_the_middle_names_the_columns_from_there_on(tmp_path: Path) -> None:
    run = recover(lightning(tmp_path / "out", "step,loss\n0,1.0\nstep,loss,val_loss\n1,0.9,0.5\n2,,\n"))
    assert run.metrics_df["step"].tolist() == [0, 1, 2]
    assert run.metrics_df["val/loss"].tolist()[1] == 0.5
    assert "column 3" not in run.metrics_df


def test_of_accuracies_the_greatest_is_the_best(tmp_path: Path) -> None:
    save(tmp_path / "run", ["ckpt_1.pt", "ckpt_2.pt", "ckpt_3.pt"], val_acc=[5, 9, 7], step=[1, 2, 3])
    best = recover(tmp_path / "run").best_checkpoint
    assert best is not None
    assert best.path.name == "ckpt_2.pt"
