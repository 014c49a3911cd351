"""Options that several verbs share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """--config FILE."""
    return click.option(
        "--config", type=click.Path(path_type=Path), help="TOML file; default: kdproxy.toml here, if there is one."
    )(function)


def data_dir_option(function: F) -> F:
    """--data-dir DIR."""
    return click.option("--data-dir", help="Where the journal lies; default: ./kdproxy-data.")(function)


def json_option(function: F) -> F:
    """--json."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(function)
