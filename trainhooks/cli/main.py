"""The `trainhooks` command: its verbs, and the exit codes that errors become."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from kdproxy.cli.verbs import VerbGroup
from trainhooks.errors import TrainhooksError
from trainhooks.host.extra import missing

VERBS = {
    "status": "Show how far a run is, alive or dead.",
    "verify": "Check checkpoints byte by byte and every recorded line.",
    "ls": "List the checkpoints that a run can go on from.",
    "tail": "Show the last recorded steps; -f follows.",
    "lineage": "Show which samples and stored answers a step was made of.",
    "recover": "Say what can be had of a run, whoever wrote it.",
    "plot": "Draw a run as PNG and as one HTML file.",
    "export": "Write a run's metrics as CSV or Parquet.",
    "rehearse": "Kill a short run of a command, resume it, and compare it with one that nobody killed.",
    "sessions": "Look into an experiment database.",
}

NEXT = """What to do next:
  trainhooks status     the newest run where runs usually are, or: trainhooks status DIR
  trainhooks recover    what can be had of it, whoever wrote it
  trainhooks plot       a picture of it
How a training is recorded: docs/training.md"""

EXIT_PROBLEM = 1
EXIT_INTERRUPTED = 130

KEPT = {
    "tail": "",
    "recover": "The run was not changed. With --database, run it again: what was written is replaced.",
    "plot": "The run was not changed. Each file is either as before or whole.",
    "export": "The run was not changed. Each file is either as before or whole.",
}
"""What Ctrl-C in a verb left behind; looking on (`tail -f`) ends without a word."""


@contextmanager
def _ending(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        click.echo(f"trainhooks: {missing(error, 'this command')}", err=True)
        sys.exit(EXIT_PROBLEM)
    except KeyboardInterrupt:
        kept = KEPT.get(ctx.invoked_subcommand or "", "Nothing was changed.")
        if kept:
            click.echo(f"trainhooks: interrupted. {kept}", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except BrokenPipeError:
        raise  # the reader has closed the pipe (`| head`): click exits without a message
    except (TrainhooksError, OSError) as error:
        click.echo(f"trainhooks: {error}", err=True)
        sys.exit(EXIT_PROBLEM)


@click.group(
    cls=VerbGroup,
    verbs=VERBS,
    package="trainhooks.cli",
    ending=_ending,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="kdproxy", prog_name="trainhooks")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Look at trainings that trainhooks records. Never loads torch."""
    if ctx.invoked_subcommand is None:
        click.echo(f"{NEXT}\n\n{ctx.get_help()}")
