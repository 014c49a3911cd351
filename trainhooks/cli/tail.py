"""`trainhooks tail`: the last recorded steps."""

import time
from collections import deque
from pathlib import Path
from typing import Any

import click

from trainhooks.cli.options import json_option, number, print_json, run_argument
from trainhooks.core import row as rows
from trainhooks.storage import inspection, metrics

_POLL_SECONDS = 0.25


@click.command("tail")
@click.option("-n", "--lines", default=10, show_default=True, help="How many steps to show first.")
@click.option("-f", "--follow", is_flag=True, help="Keep showing steps as they are recorded, until Ctrl-C.")
@run_argument
@json_option
def command(directory: Path, lines: int, follow: bool, as_json: bool) -> None:
    """Show the last recorded steps of the run in DIR: one row per step, without superseded rows."""
    path = inspection.find(directory) / "progress" / metrics.NAME
    follower = metrics.Follower(path)
    for row in deque(rows.settle(follower.read()), maxlen=lines):
        _print(row, as_json)
    while follow:
        time.sleep(_POLL_SECONDS)
        for line in follower.read():
            if "kind" not in line:
                _print(line, as_json)
            elif line["kind"] == rows.ATTEMPT and line.get("from_step") is not None:
                click.echo(f"attempt {line['attempt']} resumed at step {line['from_step']}", err=True)


def _print(row: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(row)
    else:
        click.echo(
            f"step {row['step']}  " + "  ".join(_texts({k: v for k, v in row.items() if k not in rows.RESERVED}))
        )


def _texts(members: dict[str, Any], prefix: str = "") -> list[str]:
    texts = []
    for name, value in members.items():
        if isinstance(value, dict):
            texts += _texts(value, f"{prefix}{name}.")
        else:
            texts.append(f"{prefix}{name} {number(value)}")
    return texts
