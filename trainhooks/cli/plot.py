"""`trainhooks plot`: the dashboard of a run as a PNG and as one HTML file, redrawn while the run is in progress."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainhooks.cli.options import json_option, print_json
from trainhooks.errors import TrainhooksError

if TYPE_CHECKING:
    from trainhooks.notebook import Picture

EXIT_INTERRUPTED = 130


@click.command("plot")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder for the files.  [RUN/results]")
@click.option("--every", type=click.FloatRange(min=0.2), help="Redraw every so many seconds until the run ends.")
@click.option(
    "--theme", type=click.Choice(("light", "dark")), default="light", show_default=True, help="Theme of the PNG."
)
@json_option
def command(directory: Path | None, out: Path | None, every: float | None, theme: str, as_json: bool) -> None:
    """Draw the run in DIR, or the newest one in the usual places.

    With --every, wait for a run that has not started; Ctrl-C exits with code 130.
    """
    if every is None:
        _once(directory, out, theme, as_json)
        return
    try:
        _live(directory, out, theme, as_json, every)
    except KeyboardInterrupt:
        click.echo("Stopped watching. The run itself continues.", err=True)
        sys.exit(EXIT_INTERRUPTED)


def _once(directory: Path | None, out: Path | None, theme: str, as_json: bool) -> None:
    from trainhooks.notebook import dashboard, recover

    names: dict[str, object] = {}
    said = recover(names, directory)
    if not names:
        raise TrainhooksError(str(said).partition(" Hint: ")[0], hint=str(said).partition(" Hint: ")[2])
    if out is not None:
        names["workspace_root"] = str(out)
    _print(dashboard(names, theme=theme), names["results"]["status"], as_json)  # type: ignore[index]


def _live(directory: Path | None, out: Path | None, theme: str, as_json: bool, every: float) -> None:
    from trainhooks.notebook import follow

    said, is_drawn = "", False
    for look in follow(directory, every_seconds=every, theme=theme, workspace_root=out):
        if look.said != said:
            said = look.said
            click.echo(said, err=True)
        if look.status != "not started" and (as_json or not is_drawn):
            _print(look.shown, look.status, as_json)
            is_drawn = True


def _print(drawn: "Picture | str", status: object, as_json: bool) -> None:
    from trainhooks.notebook import Picture

    if not isinstance(drawn, Picture):
        raise TrainhooksError(drawn, hint="Give another folder with --out.")
    if as_json:
        print_json({"files": [str(file) for file in drawn.files], "status": status})
    else:
        click.echo("\n".join(str(file) for file in drawn.files))
