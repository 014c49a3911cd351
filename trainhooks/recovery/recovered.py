"""A recovered run: everything that a notebook's cells need after training, without the training."""

import math
from collections.abc import Iterable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

from trainhooks.core.direction import Mode, direction_of
from trainhooks.core.experiment import Session
from trainhooks.core.metric_name import standard_name
from trainhooks.errors import TrainhooksError
from trainhooks.recovery.found import SavedModel
from trainhooks.recovery.place import Kind, PassedOver

NAMES = ("results", "metrics_df", "workspace_root", "training_config", "config", "drift_data", "run_id")
"""What `into` sets: the names that the cells after a training read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """One run, as far as it can be recovered.

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
    """What is missing, one sentence each."""
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
            raise TrainhooksError(f"Unknown checkpoint {which!r}.", hint="Choose best or last.", code="weights_missing")
        from trainhooks.recovery import weights  # loads torch only for weights

        return weights.load(model, self.checkpoints_by_choice(which))

    def checkpoints_by_choice(self, which: str) -> list[SavedModel]:
        """Return the checkpoints to try, in order: the best first or the newest first."""
        newest = newest_first(self.checkpoints)
        if which == "best" and self.best_checkpoint is not None:
            return [self.best_checkpoint, *(saved for saved in newest if saved is not self.best_checkpoint)]
        return newest

    def __str__(self) -> str:
        steps = len(self.metrics_df)
        return f"{self.run_name} ({self.kind}, {steps} rows, {len(self.checkpoints)} checkpoints) from {self.root}"


def newest_first(checkpoints: Iterable[SavedModel]) -> list[SavedModel]:
    """Return the newest first: by the order that the reader determined, else by step, epoch, reading order.
    Checkpoints of an abandoned branch come last."""
    ordered = sorted(
        enumerate(checkpoints),
        key=lambda pair: (
            not pair[1].is_abandoned,
            -1 if pair[1].order is None else pair[1].order,
            pair[1].step or 0,
            pair[1].epoch or 0,
            pair[0],
        ),
        reverse=True,
    )
    return [saved for _, saved in ordered]


def choose_best(checkpoints: Iterable[SavedModel], metrics: pd.DataFrame) -> SavedModel | None:
    """Return the best checkpoint: the one tagged `best`; else by `val/loss`, else by a metric that is known to rise
    (an accuracy); else the last."""
    newest = newest_first(checkpoints)
    if not newest:
        return None
    live = [saved for saved in newest if not saved.is_abandoned] or newest
    tagged = [saved for saved in live if "best" in saved.tags]
    if tagged:
        return tagged[0]
    for name in ("val/loss", *_rising(live, metrics)):
        measured = [(value, saved) for saved in reversed(live) if (value := _value(saved, name, metrics)) is not None]
        if measured:
            better = max if direction_of(name) is Mode.MAX else min
            return better(measured, key=lambda pair: pair[0])[1]
    return live[0]


def _rising(checkpoints: Iterable[SavedModel], metrics: pd.DataFrame) -> list[str]:
    """Return the metrics for which higher is better, those of an evaluation before those of the training."""
    names = {standard_name(name) for saved in checkpoints for name in saved.metrics} | set(map(str, metrics.columns))
    rising = [name for name in names if direction_of(name) is Mode.MAX and not name.startswith("train")]
    return sorted(rising, key=lambda name: (not name.startswith(("val", "eval")), name))


def _value(saved: SavedModel, name: str, metrics: pd.DataFrame) -> float | None:
    """Return a metric at the time of a checkpoint: from the checkpoint itself, else from the rows before it."""
    for spelling, value in saved.metrics.items():
        if standard_name(spelling) == name and not math.isnan(value):
            return float(value)
    if saved.step is None or not {"step", name} <= set(metrics):
        return None
    # Rows of ours carry the step's number from 0 on, checkpoints of all kinds the count of finished steps.
    before = metrics.loc[metrics[name].notna() & (metrics["step"] <= saved.step - saved.is_ours), name]
    value = pd.to_numeric(before, errors="coerce").dropna()
    return float(value.iloc[-1]) if len(value) else None
