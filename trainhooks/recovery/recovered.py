"""A recovered run: everything that a notebook's cells need after training, without the training."""

from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from trainhooks.core.experiment import Session
from trainhooks.errors import TrainhooksError
from trainhooks.recovery.found import SavedModel
from trainhooks.recovery.place import Kind, PassedOver

NAMES = ("results", "metrics_df", "workspace_root", "training_config", "config", "drift_data", "run_id")
"""What `into` sets: the names that the cells after a training read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """One run, as far as it can be had.

    Attributes are named as the seed notebook's variables, so that `into(globals())` is all that its cells need.
    """

    run_id: str
    """The run's own, or `<run>_recovered` once it is written to the experiment database."""
    root: Path
    kind: Kind
    metrics_df: pd.DataFrame
    """One row a step (or epoch), under the standard names (docs/recovery.md)."""
    results: Mapping[str, Any]
    workspace_root: str
    training_config: SimpleNamespace
    """At least `run_name`, `checkpoint_dir`, `output_dir`."""
    drift_data: pd.DataFrame | None
    best_checkpoint: SavedModel | None
    last_checkpoint: SavedModel | None
    checkpoints: tuple[SavedModel, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    gaps: tuple[str, ...] = ()
    """What is missing, a sentence each."""
    passed_over: tuple[PassedOver, ...] = ()
    resumes: tuple[int, ...] = ()
    rewinds: tuple[tuple[int, int], ...] = ()
    total_steps: int | None = None
    sessions: tuple[Session, ...] = ()
    status: str | None = None

    @property
    def config(self) -> SimpleNamespace:
        """The same as `training_config`, under its older name."""
        return self.training_config

    @property
    def run_name(self) -> str:
        """What files about this run are called."""
        return str(self.training_config.run_name)

    def into(self, names: MutableMapping[str, Any]) -> None:
        """Set the variables that the cells after a training read: `run.into(globals())`."""
        for name in NAMES:
            names[name] = getattr(self, name)

    def load_model(self, model: Any, which: str = "best") -> Any:
        """Load the weights of the best or the last checkpoint into `model` and return it.

        Raises:
            TrainhooksError: no such checkpoint, a damaged one, or weights that do not fit the model.
        """
        if which not in ("best", "last"):
            raise TrainhooksError(
                f"{which!r} is no choice of a checkpoint.", hint="Choose best or last.", code="weights_missing"
            )
        from trainhooks.recovery import weights  # torch is loaded only when weights are

        return weights.load(model, self.checkpoints_by_choice(which))

    def checkpoints_by_choice(self, which: str) -> list[SavedModel]:
        """Return the checkpoints to try, in order: the best first or the newest first."""
        newest = sorted(self.checkpoints, key=lambda saved: (saved.step or 0, saved.epoch or 0), reverse=True)
        if which == "best" and self.best_checkpoint is not None:
            return [self.best_checkpoint, *(saved for saved in newest if saved is not self.best_checkpoint)]
        return newest

    def __str__(self) -> str:
        steps = len(self.metrics_df)
        return f"{self.run_name} ({self.kind}, {steps} rows, {len(self.checkpoints)} checkpoints) from {self.root}"


def choose_best(checkpoints: Iterable[SavedModel], metrics: pd.DataFrame) -> SavedModel | None:
    """Return the best checkpoint: the one tagged so, else the least `val/loss`, else the last."""
    checkpoints = list(checkpoints)
    if not checkpoints:
        return None
    tagged = [saved for saved in checkpoints if "best" in saved.tags]
    if tagged:
        return tagged[-1]
    measured_at = (
        metrics.loc[metrics["val/loss"].notna(), ["step", "val/loss"]] if {"step", "val/loss"} <= set(metrics) else None
    )

    def loss(saved: SavedModel) -> float | None:
        for name in ("val/loss", "val_loss", "eval_loss"):
            if name in saved.metrics:
                return saved.metrics[name]
        if measured_at is None or saved.step is None:
            return None
        # Rows of ours carry the step's number from 0 on, checkpoints of all kinds the count of finished steps.
        before = measured_at[measured_at["step"] <= saved.step - saved.is_ours]
        return float(before["val/loss"].iloc[-1]) if len(before) else None

    measured = [(value, saved) for saved in checkpoints if (value := loss(saved)) is not None]
    if measured:
        return min(measured, key=lambda pair: pair[0])[1]
    return max(checkpoints, key=lambda saved: (saved.step or 0, saved.epoch or 0))
