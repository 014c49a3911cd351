"""One odd thing in a run is said and never costs the run."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from trainhooks import CheckpointPolicy, read_metrics, training_progress_context
from trainhooks.core import certificate
from trainhooks.errors import CheckpointInvalid
from trainhooks.recovery import recover
from trainhooks.storage import inspection
from trainhooks.storage.checkpoints import CHECKPOINTS, published


def train(out: Path, until: int, *, config: dict[str, Any] | None = None, **metrics: Any) -> list[int]:
    """Train to `until` steps, saving at the end; returns the steps that were done."""
    done = []
    with training_progress_context(
        config or {}, out, 100, state={"model": nn.Linear(1, 1)}, checkpoints=CheckpointPolicy(), database=True
    ) as progress:
        progress.loader([1.0, 2.0, 3.0])
        for step, _ in progress.steps():
            done.append(step)
            progress.update_metrics(step, **metrics)
            if step + 1 == until:
                progress.save_checkpoint()
                progress.record_checkpoint(out / "mine.pt", metrics={"loss": math.nan})
                break
    return done


def every_json(out: Path) -> list[Path]:
    return [path for path in out.rglob("*.json*") if path.is_file()]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_each_json_file_is_json_whatever_the_loss_is(tmp_path: Path, value: float) -> None:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    train(tmp_path / "run", 3, config={"limit": value}, loss=value, parts={"kd": value})
    files = every_json(tmp_path / "run")
    assert {path.name for path in files} >= {
        "session.json", "progress.json", "checkpoints.json", "manifest.json", "metrics.jsonl", "state.json"
    }  # fmt: skip
    for path in files:
        for text in path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]:
            json.loads(text, parse_constant=refuse)
    status = inspection.status(tmp_path / "run")
    assert status["progress"]["loss"] == pytest.approx(value, nan_ok=True)
    run = recover(tmp_path / "run")
    assert run.metrics_df["train/loss"].tolist() == pytest.approx([value] * 3, nan_ok=True)


def test_a_setting_that_is_nan_has_not_changed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, 2, config={"limit": math.nan}, loss=1.0)
    caplog.clear()
    assert train(tmp_path, 4, config={"limit": math.nan}, loss=1.0) == [2, 3]
    assert "limit" not in caplog.text


@pytest.mark.parametrize(
    "metrics",
    [
        {"loss_components": {"kd": 1.0}, "loss/kd": 2.0},
        {"val": {"loss": 1.0}, "val/loss": 2.0},
        {"a": {"b": {"c": 1.0}}, "a/b": 2.0},
        {"loss_components": {"kd": 1.0}, "loss": {"kd": 3.0}},
    ],
    ids=str,
)
def test_metrics_of_one_name_do_not_cost_the_run(tmp_path: Path, metrics: dict[str, Any]) -> None:
    train(tmp_path / "run", 3, **metrics)
    assert len(read_metrics(tmp_path / "run")) == 3
    run = recover(tmp_path / "run")
    assert run.metrics_df["step"].tolist() == [0, 1, 2]
    flat = next(name for name in metrics if "/" in name) if any("/" in name for name in metrics) else "loss/kd"
    assert flat in run.metrics_df or flat == "a/b"


@pytest.mark.parametrize(
    "foreign", [".ipynb_checkpoints/state-checkpoint.json", "notes.txt", "copy of model.bin", ".sync/x"]
)
def test_a_foreign_file_in_a_checkpoint_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, foreign: str
) -> None:
    train(tmp_path, 2, loss=1.0)
    for checkpoint in published(tmp_path / CHECKPOINTS):
        path = checkpoint.path / foreign
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    assert train(tmp_path, 4, loss=1.0) == [2, 3]
    assert "is left alone" in caplog.text


@pytest.mark.parametrize("planted", ["optimizer.safetensors", "rank-00001.json"])
def test_a_file_that_a_resume_would_read_is_never_taken_for_saved(tmp_path: Path, planted: str) -> None:
    train(tmp_path, 2, loss=1.0)
    for checkpoint in published(tmp_path / CHECKPOINTS):
        (checkpoint.path / planted).write_bytes(b"{}")
    with pytest.raises(CheckpointInvalid, match="not its own"):
        train(tmp_path, 4, loss=1.0)


def test_digests_of_two_releases_are_not_compared() -> None:
    recorded = [
        {"step": 5, "loss": 1.0, "replay": {"batch": "aa"}},
        {"step": 6, "loss": 2.0, "replay": {"batch": "bb"}},
    ]
    replay = certificate.Replay(recorded, 5)
    replay.observe(5, {"loss": 1.0, "replay": {"v": 2, "batch": "cc"}})
    replay.observe(6, {"loss": 2.0, "replay": {"v": 2, "batch": "dd"}})
    assert str(replay.certificate()).endswith("exact (2 of 2 recorded steps compared, by loss alone)")
