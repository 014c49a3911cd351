"""Which panels a dashboard has, and which columns of a run's table feed them. No drawing here.

A panel without data takes no space: its title is listed instead. A missing column is never an error.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from trainhooks.core.distribution import SHIFTED_PSI
from trainhooks.views import series
from trainhooks.views.board import Board, Limit, Panel, Series, number

_LOG_ABOVE = 100.0
_LOG_PERPLEXITY_ABOVE = 20.0
_MOST_LINES = 4
_LARGEST_EXPONENT = 50.0
_NOTICEABLE_JS_BITS = 0.05
"""For small changes PSI is about 8 times Jensen-Shannon in nats: this is a PSI of 0.25, the threshold of a shift."""


def compose(
    metrics: pd.DataFrame,
    *,
    title: str,
    subtitle: str = "",
    config: str = "",
    drift: pd.DataFrame | None = None,
    resumes: Sequence[float] = (),
    rewinds: Sequence[tuple[float, float]] = (),
) -> Board:
    """Choose panels for a run's table: up to six, and up to ten where drift data exists.

    Args:
        metrics: one row per step or epoch; columns as docs/recovery.md lists them. Any may be missing.
        drift: one row per window: `step` and distances by feature, `length/psi`, `tokens/js`, ...
        resumes: steps at which a later attempt resumed.
        rewinds: (from, to) in steps, trained twice.
    """
    metrics = _numbers(metrics)
    axis = "step" if "step" in metrics and metrics["step"].nunique() > 1 else "epoch"
    x = metrics[axis] if axis in metrics else pd.Series(np.arange(len(metrics), dtype=float), index=metrics.index)
    best = best_row(metrics)
    best_at = float(x.loc[best[0]]) if best is not None and best[1] == "val/loss" else None
    if best_at is not None and not math.isfinite(best_at):
        best_at = None
    panels = [
        _loss(metrics, x, best_at),
        _perplexity(metrics, x, best_at),
        _lines(metrics, x, {"learning_rate": "learning rate"}, "Learning rate", "learning rate"),
        _throughput(metrics, x),
        _logarithmic(_lines(metrics, x, {"grad_norm": "gradient norm"}, "Gradient norm", "L2 norm"), _LOG_ABOVE),
        _time(metrics, x),
    ]
    panels = [replace(each, x_label=axis if axis in metrics else "row") for each in panels]
    if drift is not None and len(drift):
        panels += _drift(_numbers(drift))
    drawn = tuple(each for each in panels if each.missing is None)
    nothing = Panel(title="Nothing recorded", y_label="", missing="the run has no metrics")
    return Board(
        title=title,
        subtitle=subtitle,
        config=config,
        panels=drawn or (nothing,),
        absent=tuple(each.title for each in panels if each.missing is not None),
        best=None
        if best_at is None or best is None
        else f"best val/loss {number(float(metrics.loc[best[0], 'val/loss']))} at {axis} {best_at:,.10g}",
        resumes=tuple(resumes),
        rewinds=tuple(rewinds),
    )


def best_row(metrics: pd.DataFrame) -> tuple[int, str] | None:
    """Return the index of the best row and the deciding column: lowest `val/loss`, else the last row with a loss."""
    for column in ("val/loss", "train/loss"):
        if column in metrics and metrics[column].notna().any():
            values = pd.to_numeric(metrics[column], errors="coerce").dropna()
            if values.empty:
                continue
            if column == "val/loss":
                return int(values.idxmin()), column
            return int(values.index[-1]), column
    return (int(metrics.index[-1]), "last row") if len(metrics) else None


def _loss(metrics: pd.DataFrame, x: pd.Series, best_at: float | None) -> Panel:
    panel = _lines(metrics, x, {"train/loss": "train", "val/loss": "validation"}, "Loss", "loss", smooth=True)
    return _logarithmic(replace(panel, best_at=best_at), _LOG_ABOVE)


def _perplexity(metrics: pd.DataFrame, x: pd.Series, best_at: float | None) -> Panel:
    columns = {"train/perplexity": "train", "val/perplexity": "validation", "perplexity": "perplexity"}
    if any(_has(metrics, column) for column in columns):
        panel = _lines(metrics, x, columns, "Perplexity", "perplexity")
    else:
        made = pd.DataFrame(index=metrics.index)
        for column, label in (("train/loss", "train"), ("val/loss", "validation")):
            if _has(metrics, column):
                made[label] = np.exp(metrics[column].clip(upper=_LARGEST_EXPONENT))
        if made.empty:
            return Panel(title="Perplexity", y_label="perplexity", missing="no loss was recorded")
        panel = _lines(made, x, {name: name for name in made}, "Perplexity", "exp(loss in nats)", smooth=True)
    return _logarithmic(replace(panel, best_at=best_at), _LOG_PERPLEXITY_ABOVE)


def _throughput(metrics: pd.DataFrame, x: pd.Series) -> Panel:
    for column, label in (
        ("tokens_per_second", "tokens/s"),
        ("samples_per_second", "samples/s"),
        ("steps_per_second", "steps/s"),
    ):
        if _has(metrics, column):
            panel = _lines(metrics, x, {column: label}, "Throughput", label, smooth=True)
            return replace(panel, series=tuple(replace(each, caption=_rate(each, label)) for each in panel.series))
    return Panel(title="Throughput", y_label="per second", missing="no samples, tokens or times were recorded")


def _rate(line: Series, unit: str) -> str:
    smoothed = "" if line.smooth is None else f" (smoothed {number(line.smooth[-1])})"
    return f"{number(line.last)} {unit}{smoothed}"


_TIME_UNITS = ((2 * 86_400.0, 86_400.0, "days"), (2 * 3_600.0, 3_600.0, "hours"), (120.0, 60.0, "minutes"))


def _time(metrics: pd.DataFrame, x: pd.Series) -> Panel:
    made = pd.DataFrame(index=metrics.index)
    for column, label in (("active_seconds", "trained"), ("eta_seconds", "left")):
        if _has(metrics, column):
            made[label] = metrics[column]
    if made.empty and _has(metrics, "time"):
        made["since the start"] = metrics["time"] - metrics["time"].dropna().iloc[0]
    if made.empty:
        return Panel(title="Time", y_label="hours", missing="no times were recorded")
    longest = float(np.nanmax(made.to_numpy()))
    size, unit = next(((size, unit) for least, size, unit in _TIME_UNITS if longest >= least), (1.0, "seconds"))
    panel = _lines(made / size, x, {name: name for name in made}, "Time", unit)
    captions = (replace(each, caption=f"{_duration(each.last * size)} {each.label}") for each in panel.series)
    return replace(panel, series=tuple(captions))


def _duration(seconds: float) -> str:
    """Return a duration in the unit that suits it, whatever the unit of the axis."""
    size, unit = next(((size, unit) for least, size, unit in _TIME_UNITS if abs(seconds) >= least), (1.0, "s"))
    return f"{seconds / size:.3g} {'min' if unit == 'minutes' else 'h' if unit == 'hours' else unit}"


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
        panel = _lines(drift, x, columns, title, "PSI to the first window")
        panels.append(replace(panel, limit=Limit(value=SHIFTED_PSI, meaning=f"shifted above {SHIFTED_PSI}")))
    distances = [name for name in drift if str(name).endswith("/js") and _has(drift, name)]
    farthest = sorted(distances, key=lambda name: -float(drift[name].max()))[:_MOST_LINES]
    columns = {name: str(name).removesuffix("/js") for name in distances if name in farthest}
    panel = _lines(drift, x, columns, "Distance of inputs", "Jensen-Shannon (bits)")
    panels.append(replace(panel, least_top=_NOTICEABLE_JS_BITS))
    return [replace(panel, x_label="step" if "step" in drift else "window") for panel in panels]


def _lines(
    table: pd.DataFrame, x: pd.Series, columns: Mapping[str, str], title: str, y_label: str, *, smooth: bool = False
) -> Panel:
    drawn: list[Series] = []
    for column, label in columns.items():
        if not _has(table, column):
            continue
        known = (table[column].notna() & x.notna()).to_numpy()
        places, values = x.to_numpy()[known], table[column].to_numpy()[known]
        if len(values):
            drawn.append(series.line(label, places, values, smooth=smooth))
    if not drawn:
        named = " or ".join(columns) or "distance"
        return Panel(title=title, y_label=y_label, missing=f"no {named} was recorded")
    return Panel(title=title, y_label=y_label, series=tuple(drawn))


def _logarithmic(panel: Panel, above: float) -> Panel:
    """Use a log axis if all values are positive and the max is more than `above` times the min."""
    values = [value for each in panel.series for value in each.y]
    return replace(panel, is_log=bool(values) and min(values) > 0 and max(values) > above * min(values))


def _numbers(table: pd.DataFrame) -> pd.DataFrame:
    """Return every column as float64; anything but a finite number becomes NaN."""
    numbers = table.apply(lambda values: pd.to_numeric(values, errors="coerce").astype(float))
    return pd.DataFrame(numbers, columns=table.columns, index=table.index).replace([np.inf, -np.inf], np.nan)


def _has(table: pd.DataFrame, column: str) -> bool:
    return column in table and bool(table[column].notna().any())
