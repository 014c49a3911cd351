"""Arguments that the verbs share, and how they print."""

from pathlib import Path
from typing import Any

import click
import orjson

from trainhooks.core import row as rows

run_argument = click.argument("directory", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
"""The run's output directory, or its progress/."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: Any) -> None:
    """Print one value on one line; NaN and infinities as their names."""
    click.echo(rows.encode(value) if isinstance(value, dict) else orjson.dumps(value) + b"\n", nl=False)


def duration(seconds: float | None) -> str:
    """Return seconds as `1 d 2 h`, `3 h 4 min`, `5 min 6 s`, `7.1 s` or `8.25 ms`; `?` for None."""
    if seconds is None:
        return "?"
    if 0 < seconds < 1:
        return f"{1_000 * seconds:.3g} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} d {hours % 24} h"


def number(value: Any, *, unit: str = "") -> str:
    """Return a number with four digits and its unit; `?` for None."""
    return "?" if value is None else f"{value:.4g}{unit}" if isinstance(value, float) else f"{value}{unit}"
