"""What notebook cells call: each returns its result, or one sentence that says which cell to run. Never a traceback.

Each takes the notebook's variables, `globals()`, and works after a training or a recovery.
"""

import math
import os
import time
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainhooks.errors import TrainhooksError
from trainhooks.host.extra import missing
from trainhooks.recovery.recover import recover as recover_run
from trainhooks.recovery.recovered import Recovered

try:
    import pandas as pd

    from trainhooks.views import chart, page, panel, results, summary
    from trainhooks.views.export import export
    from trainhooks.views.table import Table
    from trainhooks.views.theme import THEMES
except ImportError as error:
    raise missing(error, "trainhooks.notebook") from error

_RECOVERED = "_trainhooks_recovered"
_MAY_WRITE = frozenset({"running", "not started", None})
"""States of a run that may still write. None: a run of another tool, which does not record its end."""


class Sentence(str):
    """What a cell says in place of a result; displayed without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A dashboard as a notebook displays it, and its files."""

    image: bytes
    files: tuple[Path, ...]

    def _repr_png_(self) -> bytes:
        return self.image

    def __str__(self) -> str:
        return f"Dashboard: {', '.join(str(file) for file in self.files)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A run in progress at one moment."""

    shown: Picture | str
    """The dashboard, or a sentence that says why it is missing."""
    said: str
    """The state of the run in one sentence."""
    status: str | None


def recover(
    names: MutableMapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    *,
    database: str | os.PathLike[str] | bool = False,
) -> Table | Sentence:
    """Find a run and set the variables that the other cells read. An empty `path` searches the usual places."""
    try:
        found = recover_run(path or None, database=database)
    except TrainhooksError as error:
        return Sentence(error)
    _set(names, found)
    rows = [
        ("run", found.run_id),
        ("from", f"{found.root} ({found.kind})"),
        ("rows", f"{len(found.metrics_df):,}"),
        ("best checkpoint", str(found.best_checkpoint.path) if found.best_checkpoint else "none"),
        ("last checkpoint", str(found.last_checkpoint.path) if found.last_checkpoint else "none"),
        *(("missing", gap) for gap in found.gaps),
        *(("skipped", f"{each.path}: {each.reason}") for each in found.passed_over),
    ]
    return Table(title="Recovered", columns=("", ""), rows=rows, closing="All other cells work now.")


def _set(names: MutableMapping[str, Any], found: Recovered) -> None:
    found.into(names)
    names[_RECOVERED] = found


def dashboard(
    names: Mapping[str, Any], *, theme: str = "light", refresh_seconds: float | None = None
) -> Picture | Sentence:
    """Draw the dashboard; write it as a PNG and as a self-contained page to `WORKSPACE/results/`.

    Args:
        theme: of the picture, light or dark. The page follows the reader's system.
        refresh_seconds: how often the page reloads itself.
    """
    metrics, drift = names.get("metrics_df"), names.get("drift_data")
    if not isinstance(metrics, pd.DataFrame):
        return Sentence(f"Nothing to draw yet: metrics_df is not set. {summary.RUN_FIRST}")
    if theme not in THEMES:
        return Sentence(f"Unknown theme {theme!r}. Choose {' or '.join(THEMES)}.")
    found = names.get(_RECOVERED)
    recovered = found if isinstance(found, Recovered) and found.metrics_df is metrics else None
    board = panel.compose(
        metrics.reset_index(drop=True),
        title=_run_name(names),
        subtitle=_subtitle(metrics, recovered.status if recovered else None),
        config=summary.describe_settings(names),
        drift=drift if isinstance(drift, pd.DataFrame) else None,
        resumes=recovered.resumes if recovered else (),
        rewinds=recovered.rewinds if recovered else (),
    )
    image = chart.png(board, theme=theme)
    tables = (summary.summarise_best(names), summary.summarise_columns(metrics))
    text = page.render(board, tables=tables, refresh_seconds=refresh_seconds)
    files = tuple(results.place(_workspace(names), _run_name(names), f"dashboard.{kind}") for kind in ("png", "html"))
    try:
        for file, content in zip(files, (image, text.encode()), strict=True):
            results.write(file, content)
    except OSError as error:
        return Sentence(
            f"{files[0].parent} cannot be written ({error.strerror}). Set workspace_root to another folder."
        )
    return Picture(image=image, files=files)


def diagnose(names: Mapping[str, Any]) -> Table:
    """Report what this notebook has, what is missing, and which cell to run."""
    return summary.diagnose(names)


def best_model(names: Mapping[str, Any]) -> Table:
    """Describe the best model."""
    return summary.summarise_best(names)


def export_csv(names: Mapping[str, Any]) -> Sentence:
    """Write the metrics as CSV, named after the run."""
    metrics = names.get("metrics_df")
    if not isinstance(metrics, pd.DataFrame):
        return Sentence(f"Nothing to export yet: metrics_df is not set. {summary.RUN_FIRST}")
    try:
        return Sentence(f"Metrics: {export(metrics, _workspace(names), _run_name(names))}")
    except TrainhooksError as error:
        return Sentence(error)


def watch(path: str | os.PathLike[str], *, seconds: float = 3600.0, every_seconds: float = 5.0) -> None:
    """Show a run in progress until it ends or `seconds` have passed. Interrupting the cell does not stop the run."""
    deadline = time.monotonic() + seconds
    try:
        for look in follow(path, every_seconds=every_seconds):
            is_late = time.monotonic() >= deadline and look.status in _MAY_WRITE
            _show(look, f"Watched for {seconds:g} s. Run the cell again to continue." if is_late else "")
            if is_late:
                return
    except KeyboardInterrupt:
        _say("Stopped watching. The run itself continues.")
    except TrainhooksError as error:
        _say(str(error))


def _show(look: Look, added: str) -> None:
    from IPython.display import clear_output, display  # type: ignore[import-not-found,unused-ignore]

    clear_output(wait=True)  # type: ignore[no-untyped-call,unused-ignore]
    if isinstance(look.shown, Picture):
        display(look.shown)  # type: ignore[no-untyped-call,unused-ignore]
    elif look.shown != look.said:
        _say(look.shown)
    _say(f"{look.said} {added}".rstrip())


def _say(sentence: str) -> None:
    from IPython.display import display

    display({"text/plain": sentence}, raw=True)  # type: ignore[no-untyped-call,unused-ignore]


def follow(
    path: str | os.PathLike[str] | None,
    *,
    every_seconds: float,
    theme: str = "light",
    workspace_root: str | os.PathLike[str] | None = None,
) -> Iterator[Look]:
    """Draw a run every `every_seconds` until it ends; wait for one that has not started.

    Args:
        workspace_root: where the files go. None: the run's own.

    Raises:
        TrainhooksError: a run was found but cannot be read.
    """
    while True:
        names: dict[str, Any] = {}
        try:
            _set(names, recover_run(path or None))
        except TrainhooksError as error:
            if error.code != "run_not_found":
                raise
            where = f"in {path}" if path else "in the usual places"
            said = f"No run {where} yet. Waiting for it to start."
            yield Look(shown=said, said=said, status="not started")
        else:
            status = names[_RECOVERED].status
            if workspace_root is not None:
                names["workspace_root"] = str(workspace_root)
            shown = dashboard(names, theme=theme, refresh_seconds=every_seconds if status in _MAY_WRITE else None)
            yield Look(shown=shown, said=_state_of(names[_RECOVERED]), status=status)
            if status not in _MAY_WRITE:
                return
        time.sleep(every_seconds)


def _state_of(run: Recovered) -> str:
    steps = int(run.metrics_df["step"].max()) + 1 if "step" in run.metrics_df and len(run.metrics_df) else 0
    so_far = f"{steps:,} of {run.total_steps:,} steps" if run.total_steps else f"{steps:,} steps"
    if run.status in _MAY_WRITE:
        return f"{run.run_name}: {so_far} so far."
    return f"{run.run_name} has ended ({run.status}) after {so_far}."


def _workspace(names: Mapping[str, Any]) -> str | os.PathLike[str] | None:
    root = names.get("workspace_root")
    return root if isinstance(root, str | os.PathLike) else None


def _run_name(names: Mapping[str, Any]) -> str:
    return str(summary.setting(names, "run_name") or "training_run")


def _subtitle(metrics: pd.DataFrame, status: str | None) -> str:
    parts = [part for part in (status, summary.when(metrics)) if part]
    steps = pd.to_numeric(metrics["step"], errors="coerce").max() if "step" in metrics else math.nan
    if math.isfinite(steps):
        parts.append(f"{int(steps) + 1:,} steps")
    if (epochs := summary.count_epochs(metrics)) is not None:
        parts.append(f"{epochs:,g} epochs")
    return " · ".join(parts)
