"""`kdproxy export`: write the stored answers to a file or a pipe."""

import os
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click
import orjson

from kdproxy.cli.job_runner import open_runner
from kdproxy.cli.options import config_option, counted, data_dir_option, json_option, print_json, say
from kdproxy.cli.progress import shown
from kdproxy.core import record as record_format
from kdproxy.core.models import Entry, Prompt
from kdproxy.errors import KdproxyError
from kdproxy.ops import training
from kdproxy.ops.event import Finding, Line, Result
from kdproxy.ops.export import ExportArguments
from kdproxy.settings import load


@click.command("export")
@click.option(
    "--format",
    "form",
    type=click.Choice(["journal", "chat"]),
    default="journal",
    help="journal: the lines unchanged; chat: training rows in OpenAI's chat format.",
)
@click.option(
    "--output", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), default="-", metavar="FILE|-"
)
@click.option("--all", "everything", is_flag=True, help="Include superseded and withdrawn lines and tombstones.")
@data_dir_option
@config_option
@json_option
def command(
    form: str, output: Path, everything: bool, data_dir: str | None, config: Path | None, as_json: bool
) -> None:
    """Write the journal's live lines, or training rows made from them, in the order of purchase."""
    to_stdout = str(output) == "-"
    if as_json and to_stdout:
        raise click.UsageError("--json prints a summary of an export into a file: give --output FILE.")
    settings = load({"data_dir": data_dir}, config=config).settings
    counts: Counter[str] = Counter()
    made = training.TrainingRows(everything=everything)
    with (
        open_runner(settings, command="export", writes=False) as runner,
        _opened(None if to_stdout else output) as file,
    ):
        for event in shown(runner.start(ExportArguments(everything=everything)), title="export"):
            match event:
                case Line(text=text):
                    rows = _chat_rows(text, made) if form == "chat" else [text + b"\n"]
                    counts["rows"] += len(rows)
                    file.writelines(rows)
                case Finding(members=found):
                    click.echo(f"{found['segment']}:{found['line']}: {found['reason']}", err=True)
                case Result(members=members):
                    counts["damaged"] = members["damaged"]
        rest = [orjson.dumps(row) + b"\n" for row in made.rest()]
        counts["rows"] += len(rest)
        file.writelines(rest)
    left_out = {"repeated": made.repeated, "empty": made.empty, "other": made.other}
    counts["skipped"] = made.skipped
    summary = {**{name: counts[name] for name in ("rows", "skipped", "damaged")}, **left_out}
    if as_json:
        print_json(summary)
    say(f"{counted(counts['rows'], 'row')} written.")
    for name, why in _LEFT_OUT.items():
        if left_out[name]:
            say(f"{left_out[name]:,} {why}")
    if counts["damaged"]:
        say(f"{counted(counts['damaged'], 'damaged line')} left out; see `kdproxy verify`.")
        sys.exit(1)


_LEFT_OUT = {
    "repeated": "left out: another recording of a sample (other form or journal); the first one is written.",
    "empty": "left out: empty answers. `kdproxy forget --empty` withdraws them; the next run buys them again.",
    "other": "left out: not a conversation.",
}


def _chat_rows(line: bytes, made: training.TrainingRows) -> list[bytes]:
    record = record_format.decode(line)
    if not isinstance(record, Entry | Prompt):
        made.skipped += 1
        return []
    return [orjson.dumps(row) + b"\n" for row in made.take(record)]


@contextmanager
def _opened(path: Path | None) -> Iterator[IO[bytes]]:
    """Open stdout, or a file that gets its name only once it is complete and on disk."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.absolute().parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        temporary = None
    except OSError as error:
        raise KdproxyError(
            f"{path} cannot be written ({error.strerror}).",
            hint="Check that its directory exists, that you may write to it, and that the disk is not full.",
            code="output_unwritable",
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
