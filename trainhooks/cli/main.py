"""The `trainhooks` command: its verbs, and the exit codes that errors become."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from kdproxy.cli.verbs import VerbGroup
from trainhooks.errors import TrainhooksError
from trainhooks.host.extra import missing

VERBS = {
    "status": "Show the progress of a run, live or ended.",
    "verify": "Verify every byte of the checkpoints and every recorded line.",
    "ls": "List the checkpoints that a run can resume from.",
    "tail": "Show the last recorded steps; -f follows.",
    "lineage": "Show which samples and stored answers each step used.",
    "recover": "Find a run of any tool and report what can be recovered.",
    "plot": "Draw a run as a PNG and as one HTML file.",
    "export": "Write a run's metrics as CSV or Parquet.",
    "rehearse": "Kill a short run of a command, resume it, and compare it with an uninterrupted one.",
    "sessions": "Query an experiment database.",
}

NEXT = """What to do next:
  trainhooks status DIR the progress of the run in DIR
  trainhooks recover    finds the newest run in the usual places, whichever tool wrote it
  trainhooks plot       draws it
How to record a training: docs/training.md"""

EXIT_PROBLEM = 1
EXIT_INTERRUPTED = 130

KEPT = {
    "tail": "",
    "recover": "The run was not changed. If you gave --database, run the command again.",
    "plot": "The run was not changed. Each output file is either unchanged or complete.",
    "export": "The run was not changed. Each output file is either unchanged or complete.",
}
"""What a verb says after Ctrl-C. `tail -f` says nothing."""


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
    """Inspect training runs. Never loads torch."""
    if ctx.invoked_subcommand is None:
        click.echo(f"{NEXT}\n\n{ctx.get_help()}")
