"""`kdproxy config`: show the effective settings."""

from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from kdproxy.cli.options import config_option, data_dir_option, json_option, print_json
from kdproxy.settings import describe, load


@click.command("config")
@data_dir_option
@config_option
@json_option
def command(data_dir: str | None, config: Path | None, as_json: bool) -> None:
    """Show each setting, its value, and whether it came from a flag, a variable, the file or the default."""
    rows = describe(load({"data_dir": data_dir}, config=config))
    if as_json:
        print_json(rows)
        return
    table = Table("setting", "value", "from", "what it is")
    for row in rows:
        table.add_row(row["name"], _text(row["value"]), row["origin"], row["sentence"])
    Console().print(table)


def _text(value: Any) -> str:
    match value:
        case None:
            return "-"
        case str():
            return value
        case _:
            return orjson.dumps(value, default=str).decode()
