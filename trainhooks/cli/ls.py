"""`trainhooks ls`: the checkpoints of a run."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from trainhooks.cli.options import json_option, number, print_json, run_argument
from trainhooks.storage import inspection


@click.command("ls")
@click.option("--tag", help="Only those with this tag.")
@run_argument
@json_option
def command(directory: Path, tag: str | None, as_json: bool) -> None:
    """List the checkpoints of the run in DIR, own and registered ones, oldest step first."""
    found = [entry for entry in inspection.recoverable(inspection.find(directory)) if tag is None or tag in entry.tags]
    if as_json:
        print_json([asdict(entry) for entry in found])
        return
    table = Table(box=None)
    for name, side in (("step", "right"), ("size", "right"), ("made", "left"), ("tags", "left"), ("metrics", "left")):
        table.add_column(name, justify="right" if side == "right" else "left")
    table.add_column("path", overflow="fold")
    for entry in found:
        table.add_row(
            f"{entry.step:,}",
            "?" if entry.size_bytes is None else f"{entry.size_bytes / 1e6:,.1f} MB",
            f"{datetime.fromtimestamp(entry.created_at, UTC):%Y-%m-%d %H:%M:%S}Z",
            ", ".join(entry.tags),
            ", ".join(f"{name} {number(value)}" for name, value in entry.metrics.items()),
            entry.path,
        )
    Console().print(table)
