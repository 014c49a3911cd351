"""`kdproxy doctor`: check the machine, the data directory and the upstreams, at no cost."""

import sys
from pathlib import Path
from typing import Any

import click

from kdproxy.cli.doctor_inputs import examine
from kdproxy.cli.options import config_option, counted, data_dir_option, json_option, print_json, say
from kdproxy.ops.doctor.check import Check, State
from kdproxy.telemetry.log import configure

_WIDTH = max(len(state) for state in State) + 2


@click.command("doctor")
@click.option("--upstream", "upstreams", multiple=True, metavar="URL|NAME=URL", help="Teacher API, as given to serve.")
@click.option("--offline", is_flag=True, help="Leave out what needs the network.")
@data_dir_option
@config_option
@json_option
def command(
    upstreams: tuple[str, ...], offline: bool, data_dir: str | None, config: Path | None, as_json: bool
) -> None:
    """Check this machine, the data directory and the upstreams. Spends and changes nothing. Exit code 1: problems."""
    configure("error")
    checks = examine({"data_dir": data_dir, "upstreams": upstreams or None}, config=config, is_offline=offline)
    problems = [check for check in checks if check.state is State.PROBLEM]
    notes = [check for check in checks if check.state is State.NOTE]
    if as_json:
        print_json({"problems": len(problems), "notes": len(notes), "checks": [_members(check) for check in checks]})
    else:
        for check in sorted(checks, key=lambda check: list(State).index(check.state)):
            click.echo(f"{check.state:<{_WIDTH}}{check.name}: {check.text}")
            if check.hint:
                click.echo(f"{'':{_WIDTH}}{check.hint}")
    say(
        f"{counted(len(checks), 'check')}, {counted(len(notes), 'note')}, {counted(len(problems), 'problem')}. "
        "Nothing was bought or changed."
    )
    if problems:
        sys.exit(1)


def _members(check: Check) -> dict[str, Any]:
    return {"check": check.name, "state": check.state, "text": check.text, "hint": check.hint or None}
