"""What a notebook's cells call: each gives its result, or one sentence that says which cell to run. Never a traceback.

Each takes the notebook's variables, `globals()`, and works after a training and after a recovery alike.
"""

import os
import time
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import Any

import pandas as pd

from trainhooks.errors import TrainhooksError
from trainhooks.recovery.recover import recover as recover_run
from trainhooks.views import chart, page, panel, table
from trainhooks.views.export import export
from trainhooks.views.table import Table

_RUN_FIRST = "Run the training cell, or the recovery cell if the training ran before."
_RECOVERED = "_trainhooks_recovered"


class Picture:
    """A dashboard as a notebook shows it, and the files that it was written to."""

    def __init__(self, image: bytes, files: tuple[Path, ...]) -> None:
        self.image = image
        self.files = files

    def _repr_png_(self) -> bytes:
        return self.image

    def __str__(self) -> str:
        return f"Dashboard: {', '.join(str(file) for file in self.files)}"


def recover(
    names: MutableMapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    database: str | os.PathLike[str] | bool = False,
) -> Table | str:
    """Find a run and set the variables that the other cells read. An empty `path` looks where runs usually are."""
    try:
        found = recover_run(path or None, database=database)
    except TrainhooksError as error:
        return str(error)
    found.into(names)
    names[_RECOVERED] = found
    rows = [
        ("run", found.run_id),
        ("from", f"{found.root} ({found.kind})"),
        ("rows", str(len(found.metrics_df))),
        ("best checkpoint", str(found.best_checkpoint.path) if found.best_checkpoint else "none"),
        ("last checkpoint", str(found.last_checkpoint.path) if found.last_checkpoint else "none"),
        *(("not there", gap) for gap in found.gaps),
        *(("passed over", f"{each.path}: {each.reason}") for each in found.passed_over),
    ]
    return Table(title="Recovered", columns=("", ""), rows=rows, closing="All other cells work now.")


def dashboard(names: Mapping[str, Any]) -> Picture | str:
    """Draw the dashboard; writes it as PNG and as a self-contained page to `WORKSPACE/results/`."""
    metrics = names.get("metrics_df")
    if not isinstance(metrics, pd.DataFrame):
        return f"Nothing to draw yet: metrics_df is not there. {_RUN_FIRST}"
    recovered = names.get(_RECOVERED)
    board = panel.compose(
        metrics,
        title=_run_name(names),
        subtitle=_subtitle(metrics),
        drift=names.get("drift_data"),
        resumes=getattr(recovered, "resumes", ()),
        rewinds=getattr(recovered, "rewinds", ()),
    )
    image = chart.png(board)
    folder = Path(names.get("workspace_root") or ".") / "results"
    facts = [(row[0], row[1]) for row in table.summarise_best(names).rows]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files = (folder / f"{_run_name(names)}_dashboard.png", folder / f"{_run_name(names)}_dashboard.html")
        files[0].write_bytes(image)
        files[1].write_text(page.render(board, facts=facts), encoding="utf-8")
    except OSError as error:
        return f"The dashboard cannot be written to {folder} ({error.strerror}). Set workspace_root to another folder."
    return Picture(image, files)


def diagnose(names: Mapping[str, Any]) -> Table:
    """Say what this notebook has, what it lacks, and what to run."""
    return table.diagnose(names)


def best_model(names: Mapping[str, Any]) -> Table:
    """Describe the best model."""
    return table.summarise_best(names)


def export_csv(names: Mapping[str, Any]) -> str:
    """Write the metrics as CSV, named after the run."""
    metrics = names.get("metrics_df")
    if not isinstance(metrics, pd.DataFrame):
        return f"Nothing to export yet: metrics_df is not there. {_RUN_FIRST}"
    try:
        return f"Metrics: {export(metrics, names.get('workspace_root'), _run_name(names))}"
    except TrainhooksError as error:
        return str(error)


def watch(path: str | os.PathLike[str], *, seconds: float = 3600.0, every_seconds: float = 5.0) -> None:
    """Show a run in progress, drawn anew until it ends or `seconds` are over. Interrupting the cell stops it alone."""
    from IPython.display import clear_output, display  # type: ignore[import-not-found,unused-ignore]

    deadline = time.monotonic() + seconds
    while True:
        names: dict[str, Any] = {}
        said = recover(names, path)
        shown = dashboard(names) if names else said
        clear_output(wait=True)  # type: ignore[no-untyped-call,unused-ignore]
        display(shown)  # type: ignore[no-untyped-call,unused-ignore]
        recovered = names.get(_RECOVERED)
        if time.monotonic() >= deadline or (recovered is not None and recovered.status not in {None, "running"}):
            return
        time.sleep(every_seconds)


def _run_name(names: Mapping[str, Any]) -> str:
    return str(getattr(names.get("training_config"), "run_name", None) or "training_run")


def _subtitle(metrics: pd.DataFrame) -> str:
    parts = []
    if "step" in metrics and len(metrics):
        parts.append(f"{int(metrics['step'].max()) + 1:,} steps")
    if "epoch" in metrics and metrics["epoch"].notna().any():
        parts.append(f"{int(metrics['epoch'].nunique())} epochs")
    best = panel.best_row(metrics)
    if best is not None and best[1] == "val/loss":
        parts.append(f"best val/loss {metrics.loc[best[0], 'val/loss']:.4g}")
    return " · ".join(parts)
