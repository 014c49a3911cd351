"""The `kdproxy` command: its verbs, and the exit codes that errors become."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from kdproxy import __version__
from kdproxy.cli.verbs import VerbGroup
from kdproxy.errors import ConfigError, KdproxyError

VERBS = {
    "serve": "Start the proxy.",
    "run": "Run a script with samples of its own: starts a proxy if none runs.",
    "ready": "For scripts: wait until your proxy serves, and print the lines to export.",
    "warm": "Fill the cache from files: journals, tracker rows, chat messages, Batch jobs.",
    "export": "Write the stored answers: as a journal, or as training rows.",
    "stats": "Show what is stored, and what a running proxy has done.",
    "verify": "Check the journal and its index.",
    "doctor": "Check this machine, the data directory and the upstreams, at no cost.",
    "forget": "Withdraw bad answers, so that the next run buys exactly those again.",
    "runs": "List runs, show one, give samples back, rename one.",
    "scrub": "Remove credentials from a journal that an earlier release wrote.",
    "config": "Show the effective settings and where each came from.",
}

NEXT = """What to do next:
  kdproxy run -- python your_script.py               run a script: each answer is bought once, whatever happens
  kdproxy serve                                      or start the proxy; it prints the line to export
  export OPENAI_BASE_URL=http://127.0.0.1:8400/v1    in another terminal; your API key stays as it is
  kdproxy stats                                      what is stored, and what it cost
If something does not work: kdproxy doctor, docs/troubleshooting.md"""

EXIT_PROBLEM = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130

KEPT = {
    "run": "Nothing was bought: the proxy was still starting.",
    "serve": "Nothing was bought: the proxy was still starting.",
    "warm": "What was stored so far stays. Run it again: stored answers are skipped.",
    "export": "A file given with --output is unchanged; output to a pipe is incomplete.",
    "verify": "The journal was not changed. If --repair was given, run it again.",
    "forget": "Answers withdrawn so far stay withdrawn. Run it again for the rest.",
    "runs": "Samples given back so far stay given back; `kdproxy runs show NAME` shows which.",
    "scrub": "Run it again before anything else: it finishes what it started. No answer is lost.",
}
"""The state that Ctrl-C leaves behind, by verb."""


@contextmanager
def _ending(ctx: click.Context) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        kept = KEPT.get(ctx.invoked_subcommand or "", "Nothing was changed.")
        click.echo(f"kdproxy: interrupted. {kept}", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except KdproxyError as error:
        click.echo(f"kdproxy: {error}", err=True)
        sys.exit(EXIT_USAGE if isinstance(error, ConfigError) else EXIT_PROBLEM)


def _open_closed_streams() -> None:
    """Open /dev/null as stdin, stdout and stderr where they are closed.

    Else the next file that is opened gets the number: the journal would be the stderr of this process.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # the lowest free number is this one
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


@click.group(
    cls=VerbGroup,
    verbs=VERBS,
    package="kdproxy.cli",
    ending=_ending,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="kdproxy")
@click.pass_context
def main(ctx: click.Context) -> None:
    """A local caching proxy between distillation scripts and paid teacher APIs."""
    _open_closed_streams()
    if ctx.invoked_subcommand is None:
        click.echo(f"{NEXT}\n\n{ctx.get_help()}")
