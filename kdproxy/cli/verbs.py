"""A group of verbs, each in a module of its own that is loaded when the verb is used. Both commands are made of it."""

import importlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import click


class VerbGroup(click.Group):
    """Loads one verb's module only when that verb is used: `--help` needs none of them.

    Args:
        verbs: name to one line of help, in the order of `--help`.
        package: where each verb has a module with a `command`.
        ending: entered around a verb; turns its errors into a message and an exit code.
    """

    def __init__(
        self,
        *args: Any,
        verbs: Mapping[str, str],
        package: str,
        ending: Callable[[click.Context], AbstractContextManager[None]],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._verbs = verbs
        self._package = package
        self._ending = ending

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._verbs:
            return None
        command = importlib.import_module(f"{self._package}.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        with self._ending(ctx):
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(self._verbs.items()))
