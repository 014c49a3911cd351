"""`trainhooks sessions`: the runs of an experiment database."""

from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from trainhooks.cli.options import duration, json_option, number, print_json
from trainhooks.core.experiment import Run, best_of, pick
from trainhooks.storage import workspace
from trainhooks.storage.liveness import state
from trainhooks.storage.registry import Registry

_database = click.option(
    "--database",
    type=click.Path(path_type=Path),
    help="The database, or its folder.  [where runs usually are]",
)


@click.group("sessions")
def command() -> None:
    """Look into an experiment database: list, show, compare. Changes nothing."""


@command.command("list")
@_database
@json_option
def list_runs(database: Path | None, as_json: bool) -> None:
    """List the runs, newest first."""
    runs = _read(database)
    if as_json:
        print_json([{**asdict(run), "state": state(run)} for run in runs])
        return
    table = Table(box=None)
    for name in ("run", "name", "state", "made", "sessions", "best val/loss", "recovered from", "directory"):
        table.add_column(name, overflow="fold")
    for run in runs:
        best = best_of(run, "val/loss")
        table.add_row(
            run.run_id,
            run.name,
            state(run) or "",
            _time(run.created_at),
            str(len(run.sessions) or ""),
            "" if best is None else number(best),
            run.origin or "",
            run.directory,
        )
    Console().print(table)


@command.command("show")
@click.argument("wanted", metavar="RUN")
@_database
@json_option
def show(wanted: str, database: Path | None, as_json: bool) -> None:
    """Show a run's settings, sessions, metrics and checkpoints. RUN: its id, the id's beginning, or its name."""
    run = pick(_read(database), wanted)
    if as_json:
        print_json({**asdict(run), "state": state(run)})
        return
    console = Console()
    console.print(f"{run.run_id}  {run.name}  {state(run) or ''}  {_time(run.created_at)}  {run.directory}")
    if run.tags:
        console.print(f"  tags: {', '.join(run.tags)}")
    for name, value in sorted(run.config.items()):
        console.print(f"  {name} = {value}")
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
        console.print(f"  step {number(checkpoint.step)}  {checkpoint.path}")


@command.command("compare")
@click.argument("wanted", metavar="RUN RUN...", nargs=-1, required=True)
@_database
@json_option
def compare(wanted: tuple[str, ...], database: Path | None, as_json: bool) -> None:
    """Put runs side by side: the settings that differ, and the best of every metric."""
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
    path = workspace.usual() if database is None else workspace.in_folder(database)
    with closing(Registry(path, is_copy=True)) as registry:
        return registry.runs()


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}Z"
