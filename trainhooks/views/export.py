"""A run's table as CSV or Parquet, named after the run, safe to open in a spreadsheet."""

import os
import re
from pathlib import Path
from typing import Any

import pandas as pd

from trainhooks.errors import TrainhooksError
from trainhooks.views import results

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def export(
    metrics: pd.DataFrame,
    workspace_root: str | os.PathLike[str] | None = None,
    run_name: str | None = None,
    *,
    kind: str = "csv",
) -> Path:
    """Write `WORKSPACE/results/RUN_metrics.csv` (or .parquet) and return its path. Folders are made.

    Text that a spreadsheet would run as a formula is led by an apostrophe (OWASP, CSV injection); control characters
    become spaces.

    Raises:
        TrainhooksError: the place cannot be written, or Parquet is asked for without pyarrow.
    """
    path = results.place(workspace_root, run_name, f"metrics.{kind}")
    table = metrics.rename(columns=lambda column: _safe(str(column)))
    for column in table.columns:
        if table[column].dtype == object or isinstance(table[column].dtype, pd.StringDtype):
            table[column] = table[column].map(_safe)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "csv":
            table.to_csv(path, index=False)
        elif kind == "parquet":
            table.to_parquet(path, index=False)
        else:
            raise TrainhooksError(f"{kind!r} is no kind of table.", hint="Choose csv or parquet.", code="export_failed")
    except OSError as error:
        raise TrainhooksError(
            f"{path} cannot be written ({error.strerror}).", hint="Name another workspace_root.", code="export_failed"
        ) from error
    except ImportError as error:
        raise TrainhooksError(
            "Parquet needs pyarrow, which is not installed.",
            hint="pip install pyarrow, or export CSV.",
            code="export_failed",
        ) from error
    return path


def _safe(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    value = _CONTROL.sub(" ", value)
    return f"'{value}" if value.lstrip().startswith(_FORMULA) else value
