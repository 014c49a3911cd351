"""`kdproxy warm`: fill the cache from files."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from kdproxy.cli.job_runner import JobRunner, open_runner, run
from kdproxy.cli.options import config_option, counted, data_dir_option, json_option, print_json, say
from kdproxy.ops.warm.warm import MOST_SHOWN, WarmArguments
from kdproxy.settings import load

_USED = ("answers", "prompts", "tombstones", "already", "withdrawn")


@click.command("warm")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, allow_dash=True, path_type=Path))
@data_dir_option
@click.option("--upstream", metavar="URL|NAME=URL", help="Teacher API that the answers in Batch files came from.")
@click.option("--model", help="Model of rows that do not name one.")
@click.option("--anthropic-version", metavar="DATE", help="Header of live requests, for Message Batches.")
@click.option("--strict", is_flag=True, help="Stop at the first line that cannot be used.")
@config_option
@json_option
def command(
    files: tuple[Path, ...],
    data_dir: str | None,
    upstream: str | None,
    model: str | None,
    anthropic_version: str | None,
    strict: bool,
    config: Path | None,
    as_json: bool,
) -> None:
    """Fill the cache from FILES: journals, tracker rows, chat messages, Batch inputs with their outputs.

    Plain, .gz, .bz2, .xz or .zst; - is stdin; a directory means the journal in it. Stored answers are not replaced.
    Details: docs/warm.md. Exit code 1: a file is cut off, damaged or of another format, or no line could be used.
    """
    settings = load({"data_dir": data_dir, "upstreams": upstream}, config=config).settings
    given = settings.upstreams[0] if upstream is not None else None
    with open_runner(settings, command="warm", writes=True, creates=True) as runner, _on_disk(files) as paths:
        arguments = WarmArguments(
            files=paths,
            model=model,
            upstream_name=None if given is None else given.name,
            upstream_url=None if given is None else given.url,
            anthropic_version=anthropic_version,
            strict=strict,
        )
        result, findings = warm_from(runner, arguments)
    if as_json:
        print_json({**result, "findings": findings})
    has_used = any(result[name] for name in _USED)
    if result["is_stopped"] or result["broken"] or ((result["lines"] or result["bad"]) and not has_used):
        sys.exit(1)


@contextmanager
def _on_disk(files: tuple[Path, ...]) -> Iterator[tuple[str, ...]]:
    """Yield absolute paths. Stdin and pipes are copied to files: a proxy may be the reader, and it reads twice."""
    with tempfile.TemporaryDirectory(prefix="kdproxy-") as directory:
        paths: list[Path] = []
        for place, given in enumerate(files):
            spool = Path(directory) / ("stdin" if str(given) == "-" else f"{given.name}-{place}")
            if str(given) == "-":
                with spool.open("wb") as copy:
                    shutil.copyfileobj(sys.stdin.buffer, copy)
            elif not (given.is_file() or given.is_dir()):
                with given.open("rb") as pipe, spool.open("wb") as copy:
                    shutil.copyfileobj(pipe, copy)
            else:
                spool = given.absolute()
            paths.append(spool)
        yield tuple(map(str, paths))


def warm_from(runner: JobRunner, arguments: WarmArguments) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Warm, and print the outcome on stderr."""
    findings: list[dict[str, Any]] = []

    def report(finding: dict[str, Any]) -> None:
        findings.append(finding)
        click.echo(f"{finding['file']}:{finding['line']}: {finding['reason']}", err=True)

    result = run(runner, arguments, title="warm", report=report)
    taken = f"{counted(result['answers'], 'answer')} and {counted(result['prompts'], 'prompt')} stored"
    parts = [
        (result["tombstones"], "withdrawals imported"),
        (result["already"], "already stored"),
        (result["withdrawn"], "left out: withdrawn by forget"),
        (result["failed"], "requests without an answer from the provider"),
        (result["unpaired"], "Batch lines whose other half is missing"),
    ]
    say("; ".join([taken, *(f"{count} {what}" for count, what in parts if count)]) + ".")
    unlisted = result["bad"] + result["failed"] + result["unpaired"] - len(findings)
    if unlisted > 0:
        say(f"the first {MOST_SHOWN} lines are listed; {unlisted} more could not be used.")
    if not result["lines"] and not result["bad"]:
        say("warning: these files contain no lines.")
    if result["broken"]:
        say(f"error: {counted(result['broken'], 'file')} could not be read to the end; warm the whole file again.")
    if result["is_stopped"]:
        say("stopped at the first line that could not be used (--strict).")
    elif result["bad"]:
        say(f"warning: {counted(result['bad'], 'line')} could not be used and were skipped.")
    return result, findings
