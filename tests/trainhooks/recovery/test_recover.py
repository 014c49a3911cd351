"""A run is found and read whoever wrote it and however it ended; what is not there is said, and never raises."""

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from trainhooks.errors import TrainhooksError
from trainhooks.recovery import recover
from trainhooks.recovery.found import SavedModel
from trainhooks.recovery.place import Kind
from trainhooks.recovery.recovered import choose_best
from trainhooks.storage.registry import Registry

Train = Callable[..., nn.Linear]


def test_a_finished_run(tmp_path: Path, ours: Train) -> None:
    model = ours(tmp_path / "run")
    run = recover(tmp_path / "run")
    assert (run.kind, run.run_name, run.total_steps, run.status) == (Kind.TRAINHOOKS, "demo", 60, "closed")
    assert run.metrics_df["step"].tolist() == list(range(60))
    assert {"train/loss", "val/loss", "learning_rate", "samples_per_second"} <= set(run.metrics_df)
    assert run.metrics_df["val/loss"].notna().sum() == 6
    assert run.training_config.lr == 0.05
    assert run.config is run.training_config
    assert Path(run.training_config.checkpoint_dir) == tmp_path / "run" / "checkpoints"
    assert run.last_checkpoint is not None
    assert run.last_checkpoint.step == 60
    fresh = run.load_model(nn.Linear(4, 1), which="last")
    assert torch.equal(fresh.weight, model.weight)


def test_a_run_that_was_cut_off_and_went_on(tmp_path: Path, ours: Train) -> None:
    with pytest.raises(KeyboardInterrupt):
        ours(tmp_path / "run", stop_after=33)
    ours(tmp_path / "run")
    run = recover(tmp_path / "run")
    assert run.metrics_df["step"].tolist() == list(range(60))
    assert run.resumes == (20,)
    assert run.rewinds == ((20, 34),)
    assert run.provenance["attempts"] == 2


def test_drift_is_there_after_recovery(tmp_path: Path, ours: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainhooks.session.inputs.WINDOW_STEPS", 20)
    ours(tmp_path / "run")
    drift = recover(tmp_path / "run").drift_data
    assert drift is not None
    assert drift["step"].tolist() == [0, 20, 40]
    assert drift["length/psi"].tolist() == [0, 0, 0]
    assert drift["labels/js"].tolist() == [0, 1, 1]


@pytest.mark.parametrize("inside", ["", "checkpoints", "progress"])
def test_any_folder_of_a_run_leads_to_it(tmp_path: Path, ours: Train, inside: str) -> None:
    ours(tmp_path / "run")
    assert recover(tmp_path / "run" / inside).root == tmp_path / "run"


def test_without_a_path_the_newest_of_the_usual_places_is_taken(
    tmp_path: Path, ours: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TrainhooksError, match="training_output"):
        recover()
    ours(Path("training_output"), name="old")
    ours(Path("tmp_training_output"), name="new")
    run = recover()
    assert run.run_name == "new"
    shutil.rmtree(Path("tmp_training_output") / "checkpoints")
    for path in (Path("tmp_training_output") / "progress").iterdir():
        path.write_text("{ half")
    run = recover()
    assert run.run_name == "old"
    assert [each.path.name for each in run.passed_over if "damaged" in each.reason] == ["tmp_training_output"]


def test_weights_fall_back_to_a_whole_checkpoint(tmp_path: Path, ours: Train) -> None:
    ours(tmp_path / "run")
    run = recover(tmp_path / "run")
    assert run.last_checkpoint is not None
    file = run.last_checkpoint.path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    model = run.load_model(nn.Linear(4, 1), which="last")
    assert torch.isfinite(model.weight).all()
    with pytest.raises(TrainhooksError, match="do not fit"):
        run.load_model(nn.Linear(5, 1))


def test_best_is_the_checkpoint_after_the_least_validation_loss() -> None:
    metrics = pd.DataFrame({"step": [18, 19, 20, 39, 59], "val/loss": [np.nan, 0.5, np.nan, 0.2, 0.4]})
    saved = [SavedModel(path=Path(f"step-{step}"), step=step, is_ours=True) for step in (19, 20, 40, 60)]
    best = choose_best(saved, metrics)
    assert best is not None
    assert best.step == 40
    assert choose_best(saved[:2], metrics) is saved[1]
    assert choose_best(saved[:1], metrics) is saved[0]
    theirs = [SavedModel(path=Path(f"checkpoint-{step}"), step=step) for step in (19, 38, 39)]
    assert choose_best(theirs, metrics) is theirs[2]
    assert choose_best([], metrics) is None


def test_into_sets_what_cells_read(tmp_path: Path, ours: Train) -> None:
    ours(tmp_path / "run")
    names: dict[str, object] = {}
    recover(tmp_path / "run").into(names)
    assert set(names) == {
        "results",
        "metrics_df",
        "workspace_root",
        "training_config",
        "config",
        "drift_data",
        "run_id",
    }


def test_a_recovery_is_written_as_a_run_that_names_its_origin(tmp_path: Path, ours: Train) -> None:
    ours(tmp_path / "run")
    first = recover(tmp_path / "run", database=True)
    second = recover(tmp_path / "run", database=True)
    assert second.run_id == f"{first.run_id}_2"
    database = Registry(tmp_path / "experiments.db")
    names = {run.run_id: run.origin for run in database.runs()}
    database.close()
    origin = first.run_id.removesuffix("_recovered")
    assert names == {origin: None, first.run_id: origin, second.run_id: origin}


def test_runs_of_one_name_are_two_in_a_database(tmp_path: Path) -> None:
    for project in ("a", "b"):
        (tmp_path / project / "checkpoints").mkdir(parents=True)
        torch.save({"project": project}, tmp_path / project / "checkpoints" / "last.pt")
        for _ in range(2):
            recover(tmp_path / project / "checkpoints", database=tmp_path / "all.db")
    with closing(Registry(tmp_path / "all.db", is_copy=True)) as database:
        runs = database.runs()
    assert sorted(run.directory for run in runs if run.origin is None) == [
        str(tmp_path / project / "checkpoints") for project in ("a", "b")
    ]
    assert sum(run.origin is not None for run in runs) == 4


def test_hugging_face(hugging_face: Path) -> None:
    run = recover(hugging_face)
    assert run.kind is Kind.HUGGING_FACE
    assert run.metrics_df["step"].tolist() == [2, 4, 6, 8, 10, 12]
    assert run.metrics_df["val/loss"].notna().sum() == 3
    assert run.best_checkpoint is not None
    assert run.best_checkpoint.metrics["val/loss"] == pytest.approx(run.metrics_df["val/loss"].min())
    assert run.last_checkpoint is not None
    assert run.last_checkpoint.path.name == "checkpoint-12"

    class Line(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 1)

    assert torch.isfinite(run.load_model(Line()).layer.weight).all()


def test_lightning(lightning: Path) -> None:
    run = recover(lightning)
    assert run.kind is Kind.LIGHTNING
    assert run.metrics_df["train/loss"].notna().sum() == 12
    assert run.metrics_df["val/loss"].notna().sum() == 3
    assert run.training_config.width == 2
    assert run.last_checkpoint is not None


def test_torch_checkpoints_with_metrics_inside(tmp_path: Path) -> None:
    folder = tmp_path / "work" / "checkpoints"
    folder.mkdir(parents=True)
    history = []
    for epoch in range(3):
        history.append({"epoch": epoch, "train_loss": 1.0 - epoch / 10, "val_loss": [0.9, 0.5, 0.7][epoch]})
        members = {"epoch": epoch, "model_state_dict": nn.Linear(2, 1).state_dict(), "history": list(history)}
        torch.save(
            {**members, "config": {"lr": 0.1}, "val_loss": history[-1]["val_loss"]}, folder / f"epoch_{epoch}.pt"
        )
    run = recover(folder)
    assert run.kind is Kind.TORCH
    assert run.metrics_df["val/loss"].tolist() == [0.9, 0.5, 0.7]
    assert run.best_checkpoint is not None
    assert run.best_checkpoint.path.name == "epoch_1.pt"
    assert run.workspace_root == str(tmp_path / "work")
    assert run.training_config.lr == 0.1
    run.load_model(nn.Linear(2, 1))


def test_a_run_without_anything_measured_is_still_a_run(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 1).state_dict(), tmp_path / "last.pt")
    run = recover(tmp_path)
    assert run.metrics_df.empty
    assert any("No metrics" in gap for gap in run.gaps)
    run.load_model(nn.Linear(2, 1))


def test_the_columnar_copy_is_used_until_the_rows_change(
    tmp_path: Path, ours: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainhooks.recovery.own._SIDECAR_FROM_BYTES", 0)
    ours(tmp_path / "run")
    slow = recover(tmp_path / "run").metrics_df
    assert (tmp_path / "run" / "progress" / "metrics.parquet").is_file()
    monkeypatch.setattr("trainhooks.recovery.frame.read", None)
    fast = recover(tmp_path / "run").metrics_df
    pd.testing.assert_frame_equal(slow, fast)
    monkeypatch.undo()
    with (tmp_path / "run" / "progress" / "metrics.jsonl").open("ab") as file:
        file.write(b'{"v":1,"seq":9999,"attempt":1,"step":60,"at":1.0,"loss":"NaN"}\n')
    again = recover(tmp_path / "run").metrics_df
    assert again["step"].tolist()[-1] == 60
    assert np.isnan(again["train/loss"].tolist()[-1])
