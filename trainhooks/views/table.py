"""Tables and sentences about a run: what is there, what is missing, what to do next; the best model.

Each works on a notebook's variables (`globals()`) or on a recovered run, and never raises over what is not there.
"""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from trainhooks.views.panel import best_row

REQUIRED = {
    "results": "what the training returned",
    "metrics_df": "metrics, one row a step or epoch",
    "workspace_root": "where the run writes",
    "training_config": "the run's settings",
}
OPTIONAL = {
    "drift_data": "input statistics (the dashboard has ten panels with them)",
    "run_id": "the run's id",
    "config": "the older name of training_config",
}

_SHOWN = ("epoch", "step", "val/loss", "train/loss", "val/perplexity", "learning_rate", "grad_norm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows for a person: as text in a terminal, as HTML in a notebook."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    closing: str = ""

    def __str__(self) -> str:
        widths = [max(len(row[at]) for row in [self.columns, *self.rows]) for at in range(len(self.columns))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in self.rows
        ]
        return "\n".join([self.title, *(f"  {line}" for line in lines), *([self.closing] if self.closing else [])])

    def _repr_html_(self) -> str:
        head = "".join(f"<th style='text-align:left'>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return f"<b>{html.escape(self.title)}</b><table><tr>{head}</tr>{body}</table><p>{html.escape(self.closing)}</p>"


def diagnose(names: Mapping[str, Any]) -> Table:
    """Say which variables a notebook has, which it lacks, and which cell to run."""
    rows = [(name, _state(names, name, needed=True), about) for name, about in REQUIRED.items()]
    rows += [(name, _state(names, name, needed=False), about) for name, about in OPTIONAL.items()]
    missing = [name for name in REQUIRED if names.get(name) is None]
    if missing:
        closing = (
            f"Missing: {', '.join(missing)}. Run the training cell, or the recovery cell if the training ran before "
            "(also in another process)."
        )
    else:
        closing = "All there. " + _session(names)
    return Table(title="What this notebook has", columns=("name", "state", "what it is"), rows=rows, closing=closing)


def _state(names: Mapping[str, Any], name: str, *, needed: bool) -> str:
    if names.get(name) is not None:
        return "there"
    return "MISSING" if needed else "not there"


def _session(names: Mapping[str, Any]) -> str:
    metrics, settings = names["metrics_df"], names["training_config"]
    epochs = int(metrics["epoch"].nunique()) if "epoch" in metrics else len(metrics)
    return (
        f"Run {getattr(settings, 'run_name', 'without a name')}: {epochs} epochs, {len(metrics)} rows, workspace "
        f"{names['workspace_root']}, checkpoints in {getattr(settings, 'checkpoint_dir', 'no known folder')}."
    )


def summarise_best(names: Mapping[str, Any]) -> Table:
    """Describe the best model: least `val/loss`, else the last row; optional metrics where they are there."""
    metrics = names.get("metrics_df")
    if not isinstance(metrics, pd.DataFrame):
        return Table(
            title="Best model",
            columns=("", ""),
            rows=(),
            closing="No metrics yet. Run the training cell or the recovery cell.",
        )
    found = best_row(metrics)
    if found is None:
        return Table(
            title="Best model", columns=("", ""), rows=(), closing="The run has no metrics: nothing was recorded."
        )
    index, by = found
    row = metrics.loc[index]
    rows = [("chosen by", "least val/loss" if by == "val/loss" else f"last row ({by}): no val/loss was recorded")]
    rows += [(name, value) for name in _SHOWN if name in metrics and (value := _number(row[name])) is not None]
    if "val/perplexity" not in metrics and (loss := row.get("val/loss")) is not None and not pd.isna(loss):
        rows.append(("val/perplexity", f"{math.exp(min(float(loss), 50.0)):.4g} (exp of val/loss)"))
    rows.append(("checkpoint", _checkpoint(names)))
    return Table(title="Best model", columns=("", ""), rows=rows)


def _checkpoint(names: Mapping[str, Any]) -> str:
    results = names.get("results")
    path = results.get("best_checkpoint") if isinstance(results, Mapping) else None
    if not isinstance(path, str | Path) or not str(path):
        return "none is known"
    return str(path) if Path(path).exists() else f"{path} is not there any more"


def _number(value: Any) -> str | None:
    if value is None or pd.isna(value):
        return None
    return f"{int(value)}" if float(value).is_integer() else f"{float(value):.6g}"
