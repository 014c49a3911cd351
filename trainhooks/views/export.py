"""A run's table as CSV or Parquet, named after the run, safe to open in a spreadsheet."""

import os
import re
from pathlib import Path
from typing import Any

import pandas as pd

from trainhooks.errors import TrainhooksError
from trainhooks.views import results

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_UNSEEN = re.compile(r"[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Zero-width characters and direction marks: a formula could hide behind them."""
_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Full-width forms too: Japanese spreadsheets accept them. Tab and line break are control characters."""


def export(
    metrics: pd.DataFrame,
    workspace_root: str | os.PathLike[str] | None = None,
    run_name: str | None = None,
    *,
    kind: str = "csv",
) -> Path:
    """Write `WORKSPACE/results/RUN_metrics.csv` (or .parquet) and return its path. Creates the folders.

    Text that a spreadsheet would run as a formula gets a leading apostrophe (OWASP, CSV injection); control characters
    become spaces, invisible ones are removed.

    Raises:
        TrainhooksError: nothing to write, a path that cannot be written, or Parquet without pyarrow.
    """
    if metrics.empty:
        raise TrainhooksError(
            "There are no metrics to export.",
            hint="`trainhooks recover DIR` reports what the run has and which other places were searched.",
            code="export_failed",
        )
    path = results.place(workspace_root, run_name, f"metrics.{kind}")
    table = _harmless(metrics)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "csv":
            table.to_csv(path, index=False)
        elif kind == "parquet":
            table.to_parquet(path, index=False)
        else:
            raise TrainhooksError(
                f"Unknown table format {kind!r}.", hint="Choose csv or parquet.", code="export_failed"
            )
    except OSError as error:
        raise TrainhooksError(
            f"{path} cannot be written ({error.strerror}).",
            hint="Set workspace_root to another folder.",
            code="export_failed",
        ) from error
    except ImportError as error:
        raise TrainhooksError(
            "Parquet needs pyarrow, which is not installed.",
            hint="pip install pyarrow, or export CSV.",
            code="export_failed",
        ) from error
    return path


def _harmless(metrics: pd.DataFrame) -> pd.DataFrame:
    columns: dict[str, Any] = {}
    for at, name in enumerate(metrics.columns):
        column, name = metrics.iloc[:, at], _safe(str(name))
        while name in columns:
            name += "_"
        is_text = not (
            pd.api.types.is_numeric_dtype(column.dtype) or pd.api.types.is_datetime64_any_dtype(column.dtype)
        )
        columns[name] = column.astype(object).map(_safe) if is_text else column
    return pd.DataFrame(columns, index=metrics.index)


def _safe(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value = _UNSEEN.sub("", _CONTROL.sub(" ", value))
    return f"'{value}" if value.lstrip().startswith(_FORMULA) else value
