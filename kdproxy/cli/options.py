"""Options that several verbs share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """--config FILE."""
    return click.option(
        "--config", type=click.Path(path_type=Path), help="TOML file; default: ./kdproxy.toml, if it exists."
    )(function)


def data_dir_option(function: F) -> F:
    """--data-dir DIR."""
    return click.option("--data-dir", help="Data directory; default: ~/kdproxy-data, or ./kdproxy-data if it exists.")(
        function
    )


def json_option(function: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)


def print_json(value: Any) -> None:
    """Print a value as indented JSON on stdout."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def say(text: str) -> None:
    """Print a message for the user on stderr."""
    click.echo(f"kdproxy: {text}", err=True)


def counted(count: int, thing: str) -> str:
    """Return a count with its noun: 1 answer, 2 answers."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
