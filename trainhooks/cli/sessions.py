"""`trainhooks sessions`: the runs of an experiment database."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from trainhooks.cli.options import duration, json_option, number, print_json
from trainhooks.core.experiment import Run, best_of, pick, short_id
from trainhooks.storage import workspace
from trainhooks.storage.liveness import state
from trainhooks.storage.registry import Registry

_COLUMNS = 80
_LONGEST_ID = 12

_database = click.option(
    "--database",
    type=click.Path(path_type=Path),
    help="The database, or its folder.  [in the usual places]",
)


@click.group("sessions")
def command() -> None:
    """Query an experiment database: list, show, compare. Read-only."""


@command.command("list")
@_database
@json_option
def list_runs(database: Path | None, as_json: bool) -> None:
    """List the runs, newest first, each with an id that `show` and `compare` accept."""
    runs = _read(database)
    if as_json:
        print_json([{**asdict(run), "state": state(run)} for run in runs])
        return
    for line in _listing(runs):
        click.echo(line)


def _listing(runs: Sequence[Run]) -> Iterator[str]:
    """Yield lines of at most 80 columns. Long names and paths are never broken, so that they can be copied."""
    states = [state(run) or "" for run in runs]
    rows = [
        (short_id(runs, run), run.name, how.partition(":")[0], _time(run.created_at), _best(run))
        for run, how in zip(runs, states, strict=True)
    ]
    heads = ("run", "name", "state", "made", "best val/loss")
    widths = [max(len(each[at]) for each in (heads, *rows)) for at in range(len(heads))]
    widths[0] = min(widths[0], _LONGEST_ID)
    widths[1] = min(widths[1], _COLUMNS - widths[0] - sum(widths[2:]) - 2 * (len(heads) - 1))
    yield _line(heads, widths)
    for run, row, how in zip(runs, rows, states, strict=True):
        cells = row
        if len(row[0]) > widths[0] or len(row[1]) > widths[1]:
            yield f"{row[0]}  {row[1]}"
            cells = ("", "", *row[2:])
        yield _line(cells, widths)
        more = [f"{len(run.sessions)} sessions"] if len(run.sessions) > 1 else []
        more += [how] if ":" in how else []
        more += [] if run.origin is None else [f"recovered from {run.origin}"]
        yield "  ".join([" " * widths[0], *more, _near(run.directory)])


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(f"{cell:{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip()


def _best(run: Run) -> str:
    best = best_of(run, "val/loss")
    return "" if best is None else number(best)


@command.command("show")
@click.argument("wanted", metavar="RUN")
@_database
@json_option
def show(wanted: str, database: Path | None, as_json: bool) -> None:
    """Show a run's settings, sessions, metrics and checkpoints. RUN: its id, a prefix of the id, or its name."""
    run = pick(_read(database), wanted)
    if as_json:
        print_json({**asdict(run), "state": state(run)})
        return
    # Not through rich, which breaks long lines: a broken id or path cannot be copied.
    click.echo(f"{run.run_id}  {run.name}  {state(run) or ''}  {_time(run.created_at)}  {run.directory}")
    if run.tags:
        click.echo(f"  tags: {', '.join(run.tags)}")
    for name, value in sorted(run.config.items()):
        click.echo(f"  {name} = {value}")
    console = Console()
    table = Table("session", "started", "took", "ended at step", "how", "where", box=None)
    for each in run.sessions:
        is_last = each is run.sessions[-1]
        table.add_row(
            str(each.attempt),
            "" if each.started_at is None else _time(each.started_at),
            "" if each.started_at is None or each.ended_at is None else duration(each.ended_at - each.started_at),
            "" if each.step is None else f"{each.step:,}",
            (state(run) if is_last else each.status) or "",
            "" if each.host is None else f"process {each.pid} on {each.host}",
        )
    console.print(table)
    table = Table("metric", "best", "last", "steps", box=None)
    for metric in run.metrics:
        table.add_row(metric.name, number(metric.best), number(metric.last), str(metric.rows))
    console.print(table)
    for checkpoint in run.checkpoints:
        click.echo(f"  step {number(checkpoint.step)}  {checkpoint.path}")


@command.command("compare")
@click.argument("wanted", metavar="RUN RUN...", nargs=-1, required=True)
@_database
@json_option
def compare(wanted: tuple[str, ...], database: Path | None, as_json: bool) -> None:
    """Compare runs side by side: the settings that differ, and the best value of each metric."""
    known = _read(database)
    runs = [pick(known, each) for each in wanted]
    settings = sorted({name for run in runs for name in run.config})
    differ = {name: [run.config.get(name) for run in runs] for name in settings}
    differ = {name: values for name, values in differ.items() if any(value != values[0] for value in values)}
    metrics = sorted({each.name for run in runs for each in run.metrics})
    best = {name: [best_of(run, name) for run in runs] for name in metrics}
    if as_json:
        print_json({"runs": [run.run_id for run in runs], "settings": differ, "best": best})
        return
    table = Table("", *wanted, box=None)
    for name, values in differ.items():
        table.add_row(name, *("" if value is None else str(value) for value in values))
    for name, numbers in best.items():
        table.add_row(f"best {name}", *("" if each is None else number(each) for each in numbers))
    Console().print(table)


def _read(database: Path | None) -> list[Run]:
    """Read the given database, or the first in the usual places; if there are several, stderr names the one used."""
    path = workspace.usual() if database is None else workspace.in_folder(database)
    with closing(Registry(path, is_copy=True)) as registry:
        runs = registry.runs()
    others = [str(each) for each in workspace.all_usual() if each != path] if database is None else []
    if others:
        click.echo(f"database: {path} (others here: {', '.join(others)}; --database chooses)", err=True)
    return runs


def _near(directory: str) -> str:
    """Return a folder relative to the working directory if it is inside it."""
    path, here = Path(directory), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else directory


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}Z"
