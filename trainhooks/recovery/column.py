"""Rows of any writer as one table, under the standard names. Unknown columns keep their own name."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from trainhooks.core.metric_name import SPELLINGS, rank, standard_name


def tidy(rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Return rows as a table under the standard names, one row per step (or epoch), ascending, gaps as NaN.

    If one metric has several spellings, each row takes the first that it has. Rows of the same step, such as those of
    an evaluation and the training, become one row.
    """
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_records(list(rows))
    tidied: dict[str, pd.Series] = {}
    for column in sorted(table.columns, key=lambda column: (rank(str(column)), str(column))):
        name = standard_name(str(column))
        values = table[column]
        if name in SPELLINGS:
            values = pd.to_numeric(values, errors="coerce")
        tidied[name] = tidied[name].combine_first(values) if name in tidied else values
    table = pd.DataFrame(tidied, index=table.index)
    for axis in ("step", "epoch"):
        if axis in table and table[axis].notna().any():
            table[axis] = table[axis].ffill() if axis == "epoch" else table[axis]
            table = table.dropna(subset=[axis])
            merged = table.groupby(axis, sort=True).last() if table[axis].duplicated().any() else table.set_index(axis)
            table = merged.sort_index().reset_index()
            break
    return with_rates(table).reset_index(drop=True)


def with_rates(table: pd.DataFrame) -> pd.DataFrame:
    """Add throughput where it was not recorded but follows from counts and seconds; needs pandas' float columns."""
    if "active_seconds" not in table or len(table) < 2:
        return table
    seconds = table["active_seconds"].diff()
    for counts, rate in (
        ("tokens", "tokens_per_second"),
        ("samples", "samples_per_second"),
        ("step", "steps_per_second"),
    ):
        if rate not in table and counts in table:
            made = table[counts].diff() / seconds
            table[rate] = made.where((seconds > 0) & (made >= 0))
    return table
