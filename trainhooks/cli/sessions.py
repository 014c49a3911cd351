"""`trainhooks sessions`: the runs of an experiment database."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from trainhooks.cli.options import json_option, number, print_json
from trainhooks.errors import TrainhooksError
from trainhooks.storage.registry import DATABASE, Registry, Run

_database = click.option(
    "--database",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    default=DATABASE,
    show_default=True,
    help="The database.",
)


@click.group("sessions")
def command() -> None:
    """Look into an experiment database: list, show, compare."""


@command.command("list")
@_database
@json_option
def list_runs(database: Path, as_json: bool) -> None:
    """List the runs, newest first."""
    runs = _runs(database)
    if as_json:
        print_json([asdict(run) for run in runs])
        return
    table = Table("run", "recovered from", "made", "best val/loss", "directory", box=None)
    for run in runs:
        table.add_row(run.run_id, run.origin or "", _time(run.created_at), _best(run, "val/loss"), run.directory)
    Console().print(table)


@command.command("show")
@click.argument("run_id", metavar="RUN")
@_database
@json_option
def show(run_id: str, database: Path, as_json: bool) -> None:
    """Show one run with its settings, metrics and checkpoints."""
    run = _find(database, run_id)
    if as_json:
        print_json(asdict(run))
        return
    console = Console()
    console.print(f"{run.run_id}  {_time(run.created_at)}  {run.directory}")
    for name, value in sorted(run.config.items()):
        console.print(f"  {name} = {value}")
    table = Table("metric", "best", "last", "rows", box=None)
    for each in run.metrics:
        table.add_row(each.name, number(each.best), number(each.last), str(each.rows))
    console.print(table)
    for checkpoint in run.checkpoints:
        console.print(f"  step {checkpoint['step']}  {checkpoint['path']}")


@command.command("compare")
@click.argument("run_ids", metavar="RUN RUN...", nargs=-1, required=True)
@_database
@json_option
def compare(run_ids: tuple[str, ...], database: Path, as_json: bool) -> None:
    """Put runs side by side: the settings that differ, and the best of every metric."""
    runs = [_find(database, run_id) for run_id in run_ids]
    settings = sorted({name for run in runs for name in run.config})
    differ = {name: [run.config.get(name) for run in runs] for name in settings}
    differ = {name: values for name, values in differ.items() if any(value != values[0] for value in values)}
    metrics = sorted({each.name for run in runs for each in run.metrics})
    best = {name: [_best(run, name) for run in runs] for name in metrics}
    if as_json:
        print_json({"runs": list(run_ids), "settings": differ, "best": best})
        return
    table = Table("", *run_ids, box=None)
    for name, values in differ.items():
        table.add_row(name, *("" if value is None else str(value) for value in values))
    for name, texts in best.items():
        table.add_row(f"best {name}", *texts)
    Console().print(table)


def _runs(database: Path) -> list[Run]:
    registry = Registry(database)
    try:
        return registry.runs()
    finally:
        registry.close()


def _find(database: Path, run_id: str) -> Run:
    runs = {run.run_id: run for run in _runs(database)}
    if run_id not in runs:
        raise TrainhooksError(f"{database} has no run {run_id}.", hint="`trainhooks sessions list` names all of them.")
    return runs[run_id]


def _best(run: Run, name: str) -> str:
    return next((number(each.best) for each in run.metrics if each.name == name), "")


def _time(at: float) -> str:
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M}Z"
