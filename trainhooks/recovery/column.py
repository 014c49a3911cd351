"""One name per measured thing, however its writer spelt it. Unknown columns keep their own name."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

SPELLINGS: Mapping[str, tuple[str, ...]] = {
    "step": ("step", "global_step", "steps", "iteration", "iter", "trainer/global_step"),
    "epoch": ("epoch", "epochs"),
    "train/loss": ("train/loss", "loss", "train_loss", "training_loss", "train_loss_step", "train_loss_epoch"),
    "val/loss": ("val/loss", "val_loss", "eval_loss", "valid_loss", "validation_loss", "eval/loss", "validation/loss"),
    "train/perplexity": ("train/perplexity", "train_perplexity", "train_ppl"),
    "val/perplexity": ("val/perplexity", "val_perplexity", "eval_perplexity", "val_ppl", "eval_ppl"),
    "perplexity": ("perplexity", "ppl"),
    "learning_rate": ("learning_rate", "lr", "train/learning_rate", "train/lr"),
    "grad_norm": ("grad_norm", "gradient_norm", "train/grad_norm", "grad_norm_total"),
    "samples_per_second": ("samples_per_second", "train_samples_per_second", "throughput", "samples_per_sec"),
    "tokens_per_second": ("tokens_per_second", "train_tokens_per_second", "tokens_per_sec"),
    "steps_per_second": ("steps_per_second", "train_steps_per_second", "it_per_sec"),
    "samples": ("samples", "samples_processed", "num_input_samples"),
    "tokens": ("tokens", "tokens_processed", "num_input_tokens_seen"),
    "time": ("time", "at", "t", "timestamp", "_timestamp", "created_at"),
    "active_seconds": ("active_seconds", "elapsed_seconds", "train_runtime"),
    "eta_seconds": ("eta_seconds",),
}

_LEARNING_RATE = re.compile(r"lr-[A-Za-z0-9_/-]+")
_BY_SPELLING = {spelling: name for name, spellings in SPELLINGS.items() for spelling in spellings}


def tidy(rows: Iterable[Mapping[str, Any]] | pd.DataFrame) -> pd.DataFrame:
    """Return rows as a table under the standard names, one row a step (or epoch), ascending, gaps as NaN.

    Where several spellings of one thing are there, each row takes the first that it has. Rows of one step, such as an
    evaluation's beside the training's, become one row.
    """
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame.from_records(list(rows))
    tidied: dict[str, pd.Series] = {}
    for column in sorted(table.columns, key=lambda column: _order(str(column))):
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


def standard_name(column: str) -> str:
    """Return the standard name of a column, or its own."""
    if _LEARNING_RATE.fullmatch(column):
        return "learning_rate"
    return _BY_SPELLING.get(column, column)


def _order(column: str) -> tuple[int, str]:
    spellings = SPELLINGS.get(standard_name(column), ())
    return (spellings.index(column) if column in spellings else len(spellings), column)
