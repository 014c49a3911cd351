"""`trainhooks verify`: whether a run's files are intact."""

import sys
from dataclasses import asdict
from pathlib import Path

import click

from trainhooks.cli.options import json_option, print_json, run_argument
from trainhooks.storage import inspection


@click.command("verify")
@run_argument
@json_option
def command(directory: Path, as_json: bool) -> None:
    """Verify every byte of the checkpoints in DIR and every recorded line. Exit code 1: problems found."""
    problems, checked = [], []
    for name, found in inspection.verify(inspection.find(directory)):
        checked.append(name)
        problems += found
        if not as_json:
            for problem in found:
                click.echo(f"{problem.where}: {problem.what}")
            if not found:
                click.echo(f"{name}: whole")
    if as_json:
        print_json({"checked": checked, "problems": [asdict(problem) for problem in problems]})
    else:
        click.echo(f"{len(checked)} checked, {len(problems)} problems found.", err=True)
    if problems:
        sys.exit(1)
