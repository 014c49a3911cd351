"""Which panels a dashboard has, and which columns of a run's table feed them. No drawing here.

A panel without data says in a word what is missing; it never fails.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a panel: equally long x and y, x ascending, y without holes."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    is_smooth: bool = False
    """Whether it is a running mean of the series before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One chart."""

    title: str
    y_label: str
    series: tuple[Series, ...] = ()
    missing: str | None = None
    """What is not there, in place of a chart."""
    best_at: float | None = None
    """Where on the x axis the best value lies, if this panel marks it."""
    is_log: bool = False
    note: str | None = None
    """A sentence under the title."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A whole dashboard."""

    title: str
    subtitle: str
    x_label: str
    panels: tuple[Panel, ...]
    resumes: tuple[float, ...] = ()
    """Where on the x axis a later attempt went on."""
    rewinds: tuple[tuple[float, float], ...] = ()
    """(from, to): stretches that were trained twice."""


SMOOTH_SUFFIX = ", running mean"
_SMOOTH_ABOVE = 60
_SMOOTH_SHARE = 0.02
_LOG_ABOVE = 100.0
MAX_POINTS = 1_000
"""A line on screen has no more; longer series are thinned by bin means."""


def compose(
    metrics: pd.DataFrame,
    *,
    title: str,
    subtitle: str = "",
    drift: pd.DataFrame | None = None,
    resumes: Sequence[float] = (),
    rewinds: Sequence[tuple[float, float]] = (),
) -> Board:
    """Choose panels for a run's table: six, and ten where drift data exists.

    Args:
        metrics: one row a step or epoch; columns as docs/recovery.md lists them. Any may be missing.
        drift: one row a window: `step` and distances by feature, `length/psi`, `tokens/js`, ...
    """
    metrics = _numbers(metrics)
    axis = "step" if "step" in metrics and metrics["step"].nunique() > 1 else "epoch"
    x = metrics[axis] if axis in metrics else pd.Series(np.arange(len(metrics), dtype=float), index=metrics.index)
    panels = [
        _loss(metrics, x),
        _perplexity(metrics, x),
        _lines(metrics, x, {"learning_rate": "learning rate"}, "Learning rate", "learning rate"),
        _throughput(metrics, x),
        _lines(metrics, x, {"grad_norm": "gradient norm"}, "Gradient norm", "L2 norm"),
        _time(metrics, x),
    ]
    if drift is not None and len(drift):
        panels += _drift(_numbers(drift))
    return Board(
        title=title,
        subtitle=subtitle,
        x_label=axis,
        panels=tuple(panels),
        resumes=tuple(resumes),
        rewinds=tuple(rewinds),
    )


def best_row(metrics: pd.DataFrame) -> tuple[int, str] | None:
    """Return the index of the best row and the column that says so: least `val/loss`, else the last row with a loss."""
    for column in ("val/loss", "train/loss"):
        if column in metrics and metrics[column].notna().any():
            values = pd.to_numeric(metrics[column], errors="coerce").dropna()
            if values.empty:
                continue
            if column == "val/loss":
                return int(values.idxmin()), column
            return int(values.index[-1]), column
    return (int(metrics.index[-1]), "last row") if len(metrics) else None


def _loss(metrics: pd.DataFrame, x: pd.Series) -> Panel:
    panel = _lines(metrics, x, {"train/loss": "train", "val/loss": "validation"}, "Loss", "loss", smooth=True)
    best = best_row(metrics)
    if panel.missing is not None or best is None or best[1] != "val/loss":
        return panel
    return Panel(
        title=panel.title,
        y_label=panel.y_label,
        series=panel.series,
        best_at=float(x.loc[best[0]]),
        is_log=panel.is_log,
    )


def _perplexity(metrics: pd.DataFrame, x: pd.Series) -> Panel:
    columns = {"train/perplexity": "train", "val/perplexity": "validation", "perplexity": "perplexity"}
    if any(_has(metrics, column) for column in columns):
        return _lines(metrics, x, columns, "Perplexity", "perplexity")
    made = pd.DataFrame(index=metrics.index)
    for column, label in (("train/loss", "train"), ("val/loss", "validation")):
        if _has(metrics, column):
            made[label] = np.exp(metrics[column].clip(upper=50.0))
    panel = _lines(made, x, {name: name for name in made}, "Perplexity", "perplexity", smooth=True)
    if panel.missing is not None:
        return Panel(title="Perplexity", y_label="perplexity", missing="no loss was recorded")
    return Panel(
        title=panel.title,
        y_label=panel.y_label,
        series=panel.series,
        is_log=panel.is_log,
        note="exp(loss), loss in nats",
    )


def _throughput(metrics: pd.DataFrame, x: pd.Series) -> Panel:
    for column, label in (
        ("tokens_per_second", "tokens/s"),
        ("samples_per_second", "samples/s"),
        ("steps_per_second", "steps/s"),
    ):
        if _has(metrics, column):
            return _lines(metrics, x, {column: label}, "Throughput", label, smooth=True)
    return Panel(title="Throughput", y_label="per second", missing="no samples, tokens or times were recorded")


def _time(metrics: pd.DataFrame, x: pd.Series) -> Panel:
    made = pd.DataFrame(index=metrics.index)
    if _has(metrics, "active_seconds"):
        made["active"] = metrics["active_seconds"] / 3600
    if _has(metrics, "eta_seconds"):
        made["left"] = metrics["eta_seconds"] / 3600
    if made.empty and _has(metrics, "time"):
        made["since start"] = (metrics["time"] - metrics["time"].dropna().iloc[0]) / 3600
    if made.empty:
        return Panel(title="Time", y_label="hours", missing="no times were recorded")
    return _lines(made, x, {name: name for name in made}, "Time", "hours")


_DRIFT_PANELS = (
    ("Input length drift", ("length",)),
    ("Vocabulary drift", ("tokens",)),
    ("Label and teacher drift", ("labels", "logprobs")),
)


def _drift(drift: pd.DataFrame) -> list[Panel]:
    x = drift["step"] if "step" in drift else pd.Series(np.arange(len(drift), dtype=float), index=drift.index)
    panels = []
    for title, features in _DRIFT_PANELS:
        columns = {f"{feature}/psi": feature for feature in features}
        panels.append(_lines(drift, x, columns, title, "PSI", note="against the first window; above 0.25 is shifted"))
    columns = {name: name.removesuffix("/js") for name in drift if str(name).endswith("/js")}
    panels.append(_lines(drift, x, columns, "Distance of inputs", "Jensen-Shannon (bits)"))
    return panels


def _lines(
    table: pd.DataFrame,
    x: pd.Series,
    columns: Mapping[str, str],
    title: str,
    y_label: str,
    *,
    smooth: bool = False,
    note: str | None = None,
) -> Panel:
    series = []
    for column, label in columns.items():
        if not _has(table, column):
            continue
        known = (table[column].notna() & x.notna()).to_numpy()
        places, values = x.to_numpy()[known], table[column].to_numpy()[known]
        if not len(values):
            continue
        xs, ys = _thinned(places, values)
        series.append(Series(label=label, x=xs, y=ys))
        if smooth and len(values) > _SMOOTH_ABOVE:
            window = max(3, int(len(values) * _SMOOTH_SHARE))
            running = pd.Series(values).ewm(span=window).mean().to_numpy()
            xs, ys = _thinned(places, running)
            series.append(Series(label=label + SMOOTH_SUFFIX, is_smooth=True, x=xs, y=ys))
    if not series:
        named = ", ".join(columns) or "values"
        return Panel(title=title, y_label=y_label, missing=f"no {named} was recorded")
    return Panel(title=title, y_label=y_label, series=tuple(series), is_log=_is_wide(series), note=note)


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[Sequence[float], Sequence[float]]:
    if len(x) > MAX_POINTS:
        bounds = np.linspace(0, len(x), MAX_POINTS + 1).astype(int)[:-1]
        sizes = np.diff(np.append(bounds, len(x)))
        x, y = np.add.reduceat(x, bounds) / sizes, np.add.reduceat(y, bounds) / sizes
    return x.tolist(), y.tolist()


def _is_wide(series: Sequence[Series]) -> bool:
    values = [value for each in series for value in each.y]
    return min(values) > 0 and max(values) / min(values) > _LOG_ABOVE and math.isfinite(max(values))


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Every column as float64; what is no finite number becomes a hole."""
    numbers = table.apply(lambda values: pd.to_numeric(values, errors="coerce").astype(float))
    return pd.DataFrame(numbers, columns=table.columns, index=table.index).replace([np.inf, -np.inf], np.nan)


def _has(table: pd.DataFrame, column: str) -> bool:
    return column in table and bool(table[column].notna().any())
