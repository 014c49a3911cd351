"""`trainhooks status`: the progress of a run."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from trainhooks.cli.options import duration, json_option, number, print_json, run_argument
from trainhooks.core import certificate
from trainhooks.storage import inspection


@click.command("status")
@run_argument
@json_option
def command(directory: Path, as_json: bool) -> None:
    """Show the progress, speed, time left and time use of the run in DIR."""
    found = inspection.status(inspection.find(directory))
    if as_json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    table = Table("what", "how much", box=None, show_header=False)
    held = found["holder"]
    table.add_row("run", f"{found['session_id']} in {found['output_dir']}")
    table.add_row("state", found["state"] + ("" if held is None else f" (process {held['pid']} on {held['host']})"))
    table.add_row("attempts", str(found["attempts"]))
    if found["certificate"] is not None:
        table.add_row("last resume", certificate.describe(found["certificate"]))
    if found["progress"] is not None:
        _add_progress(table, found["progress"])
        table.add_row("last seen", f"{duration(found['seen_seconds_ago'])} ago")
    newest = found["newest_checkpoint"]
    table.add_row(
        "checkpoints", str(found["checkpoints"]) + ("" if newest is None else f", newest at step {newest['step']}")
    )
    Console().print(table)


def _add_progress(table: Table, last: dict[str, Any]) -> None:
    table.add_row("step", f"{last['step']:,} of {last['total_steps']:,} ({last['percent']:.1f} %)")
    table.add_row("loss", f"{number(last['loss'])} ({last['loss_trend']})")
    table.add_row("learning rate", number(last["learning_rate"]))
    table.add_row("step time", duration(last["step_seconds"]))
    table.add_row(
        "throughput",
        f"{number(last['samples_per_second'])} samples/s, {number(last['tokens_per_second'])} tokens/s",
    )
    table.add_row("time left", duration(last["eta_seconds"]))
    spent = [f"{name} {duration(seconds)}" for name, seconds in last["seconds"].items() if seconds]
    table.add_row("time", ", ".join(spent) or "none")
    if last["failures"]:
        now = ", down now" if last["is_down"] else ""
        counts = f"{last['failures']} failures, {last['recoveries']} recoveries"
        table.add_row("connection", f"{counts}, {duration(last['down_seconds'])} down in total{now}")
    for problem in last["problems"]:
        table.add_row("problem", problem)
