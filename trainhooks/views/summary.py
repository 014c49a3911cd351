"""What is there, what is missing, what to do next; the best model; what was recorded. As tables and sentences.

Each works on a notebook's variables (`globals()`), whatever they hold, and never raises because one is missing.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from trainhooks.core import epochs
from trainhooks.core.manifest import MANIFEST
from trainhooks.core.number import as_float
from trainhooks.errors import CheckpointInvalid
from trainhooks.storage.verification import read_manifest
from trainhooks.views.board import number
from trainhooks.views.panel import best_row
from trainhooks.views.table import Table

REQUIRED = {
    "results": "what the training returned",
    "metrics_df": "metrics, one row per step or epoch",
    "workspace_root": "where the run writes",
    "training_config": "the run's settings",
}
OPTIONAL = {
    "drift_data": "input statistics (the dashboard shows up to ten panels with them)",
    "run_id": "the run's id",
    "config": "the older name of training_config",
}
RUN_FIRST = "Run the training cell, or the recovery cell if the training ran before."

_SHOWN = (
    "epoch",
    "step",
    "val/loss",
    "train/loss",
    "val/perplexity",
    "train/perplexity",
    "perplexity",
    "learning_rate",
    "grad_norm",
)
_MOST_COLUMNS = 200
_NOT_SETTINGS = {"run_name", "name", "checkpoint_dir", "output_dir", "workspace_root"}


def diagnose(names: Mapping[str, Any]) -> Table:
    """Report which variables a notebook has, which are missing, and which cell to run."""
    rows = [(name, "✔ there" if _has(names, name) else "✘ MISSING", about) for name, about in REQUIRED.items()]
    rows += [(name, "✔ there" if _has(names, name) else "○ not there", about) for name, about in OPTIONAL.items()]
    missing = [name for name in REQUIRED if not _has(names, name)]
    closing = f"Missing: {', '.join(missing)}. {RUN_FIRST}" if missing else f"All there. {_run(names)}"
    return Table(title="What this notebook has", columns=("name", "state", "what it is"), rows=rows, closing=closing)


def _has(names: Mapping[str, Any], name: str) -> bool:
    return names.get(name) is not None


def _run(names: Mapping[str, Any]) -> str:
    metrics = names["metrics_df"]
    if not isinstance(metrics, pd.DataFrame):
        return f"But metrics_df is not a pandas DataFrame. {RUN_FIRST}"
    counted = count_epochs(metrics)
    passed = "" if counted is None else f"{counted:g} epochs, "
    return (
        f"Run {setting(names, 'run_name') or 'without a name'}: {passed}{len(metrics)} rows, workspace "
        f"{names['workspace_root']}, checkpoints in {setting(names, 'checkpoint_dir') or 'an unknown folder'}."
    )


def count_epochs(metrics: pd.DataFrame) -> float | None:
    """Return how many epochs a table covers; None if it has none. A cell may have put anything there."""
    if "epoch" not in metrics:
        return None
    numbers = map(as_float, pd.to_numeric(metrics["epoch"], errors="coerce").dropna().unique())
    return epochs.count(filter(math.isfinite, numbers))


def setting(names: Mapping[str, Any], name: str) -> Any:
    """Return one entry of `training_config`, which may be a namespace, a dataclass or a dict; None if missing."""
    settings = names.get("training_config")
    return settings.get(name) if isinstance(settings, Mapping) else getattr(settings, name, None)


def summarise_best(names: Mapping[str, Any]) -> Table:
    """Describe the best model: lowest `val/loss`, else the last row; optional metrics where recorded."""
    metrics = names.get("metrics_df")
    if not isinstance(metrics, pd.DataFrame):
        return Table(title="Best model", columns=("", ""), rows=(), closing=f"No metrics yet. {RUN_FIRST}")
    metrics = metrics.reset_index(drop=True)
    found = best_row(metrics)
    if found is None:
        return Table(
            title="Best model", columns=("", ""), rows=(), closing="The run has no metrics: nothing was recorded."
        )
    at, by = found
    row = metrics.iloc[at]
    unit = "epoch" if "step" not in metrics and "epoch" in metrics else "row"
    rows = [("chosen by", "lowest val/loss" if by == "val/loss" else f"last {unit}: no val/loss was recorded")]
    rows += [(name, text) for name in _SHOWN if (text := _text(row.get(name))) is not None]
    loss = _number(row.get("val/loss"))
    if loss is not None and _text(row.get("val/perplexity")) is None:
        rows.append(("val/perplexity", f"{math.exp(min(loss, 50.0)):.4g} (exp of val/loss)"))
    rows.append(("checkpoint", _checkpoint(names)))
    return Table(title="Best model", columns=("", ""), rows=rows)


def summarise_columns(metrics: pd.DataFrame) -> Table:
    """List what was recorded, including what no panel shows: rows, last value, min and max."""
    rows = []
    for name in list(metrics)[:_MOST_COLUMNS]:
        values = pd.to_numeric(metrics[name], errors="coerce").astype(float).dropna()
        if len(values):
            write = _date if name == "time" else number
            rows.append((str(name), f"{len(values):,}", *map(write, (values.iloc[-1], values.min(), values.max()))))
    return Table(title="Recorded", columns=("name", "rows", "last", "min", "max"), rows=rows)


def _date(at: float) -> str:
    """Return UTC Unix seconds as a date; any other number as it is."""
    try:
        return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S}Z"
    except (ValueError, OverflowError, OSError):
        return number(at)


def describe_settings(names: Mapping[str, Any]) -> str:
    """Return a notebook's settings in one line: simple values only, without paths and the run's name."""
    settings = names.get("training_config")
    members = settings if isinstance(settings, Mapping) else getattr(settings, "__dict__", {})
    shown = {
        str(name): value
        for name, value in members.items()
        if isinstance(value, str | int | float) and str(name) not in _NOT_SETTINGS and not str(name).startswith("_")
    }
    return " · ".join(
        f"{name} {value if isinstance(value, str) else format(value, '.6g')}" for name, value in shown.items()
    )


def when(metrics: pd.DataFrame) -> str:
    """Return the time of the last row, if times were recorded."""
    times = pd.to_numeric(metrics["time"], errors="coerce").dropna() if "time" in metrics else pd.Series(dtype=float)
    return _date(float(times.iloc[-1])) if len(times) else ""


def _checkpoint(names: Mapping[str, Any]) -> str:
    """Name the best checkpoint and report what is at its path; its bytes are verified when it is loaded."""
    results = names.get("results")
    known = results.get("best_checkpoint") if isinstance(results, Mapping) else None
    if not isinstance(known, str | Path) or not str(known):
        return "unknown"
    path = Path(known)
    try:
        if path.is_file():
            return f"{path} ({_size(path.stat().st_size)})"
        if not path.is_dir():
            return f"{path} no longer exists"
        if not (path / MANIFEST).is_file():
            return f"{path} (a folder)"
        return _ours(path)
    except CheckpointInvalid as error:
        return f"{path} is damaged: {error.message}"
    except OSError as error:
        return f"{path} cannot be read ({error.strerror})"


def _ours(path: Path) -> str:
    files = read_manifest(path).files
    for name, record in files.items():
        found = path / name
        if not found.is_file() or found.stat().st_size != record.size_bytes:
            return f"{path} is damaged: {name} does not match its manifest"
    return f"{path} ({len(files)} files, {_size(sum(record.size_bytes for record in files.values()))}, complete)"


def _size(count: int) -> str:
    for unit in ("bytes", "KB", "MB", "GB"):
        if count < 1_000 or unit == "GB":
            return f"{count:.3g} {unit}" if unit != "bytes" else f"{count} bytes"
        count = count / 1_000  # type: ignore[assignment]
    raise AssertionError


def _number(value: Any) -> float | None:
    """Return a cell as a finite number; None for anything else."""
    found = pd.to_numeric(pd.Series([value]), errors="coerce").iloc[0]
    return None if pd.isna(found) or not math.isfinite(found) else float(found)


def _text(value: Any) -> str | None:
    found = _number(value)
    if found is None:
        return None
    return f"{int(found):,}" if found.is_integer() and abs(found) < 1e15 else f"{found:.6g}"
