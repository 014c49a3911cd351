"""`trainhooks plot`: the dashboard of a run as PNG and as one HTML file."""

import time
from pathlib import Path

import click

from trainhooks.cli.options import json_option, print_json
from trainhooks.errors import TrainhooksError
from trainhooks.notebook import Picture, dashboard, recover


@click.command("plot")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the files.  [RUN/results]")
@click.option("--every", type=click.FloatRange(min=0.2), help="Draw again each so many seconds until the run ends.")
@json_option
def command(directory: Path | None, out: Path | None, every: float | None, as_json: bool) -> None:
    """Draw the run in DIR, or the newest one where runs usually are."""
    while True:
        names: dict[str, object] = {}
        said = recover(names, directory)
        if not names:
            raise TrainhooksError(str(said).partition(" Hint: ")[0], hint=str(said).partition(" Hint: ")[2])
        status = names["results"]["status"]  # type: ignore[index]
        if out is not None:
            names["workspace_root"] = str(out)
        drawn = dashboard(names)
        if not isinstance(drawn, Picture):
            raise TrainhooksError(drawn, hint="Give another folder with --out.")
        if as_json:
            print_json({"files": [str(file) for file in drawn.files], "status": status})
        else:
            click.echo("\n".join(str(file) for file in drawn.files))
        if every is None or status != "running":
            return
        time.sleep(every)
