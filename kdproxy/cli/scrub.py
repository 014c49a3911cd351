"""`kdproxy scrub`: take credentials out of a journal that an earlier release wrote."""

import sys
from pathlib import Path

import click

from kdproxy.cli.options import config_option, counted, data_dir_option, json_option, print_json, say
from kdproxy.errors import KdproxyError
from kdproxy.ops.scrub import scrubbed
from kdproxy.settings import load
from kdproxy.storage.layout import is_data_directory
from kdproxy.storage.rewrite import rewrite, survey


@click.command("scrub")
@click.option("--dry-run", is_flag=True, help="Only say where credentials stand. Exit code 1: there are some.")
@data_dir_option
@config_option
@json_option
def command(dry_run: bool, data_dir: str | None, config: Path | None, as_json: bool) -> None:
    """Put stars for credentials that stand in stored requests. No proxy may be running on the data directory.

    Releases before key version 2 stored request bodies as they came. Answers, keys and names stay as they are.
    """
    path = load({"data_dir": data_dir}, config=config).settings.data_dir.expanduser()
    if not is_data_directory(path):
        raise KdproxyError(
            f"{path} is no data directory of kdproxy.",
            hint="Name it with --data-dir or KDPROXY_DATA_DIR.",
            code="no_data_dir",
        )
    done = survey(path, scrubbed) if dry_run else rewrite(path, scrubbed, command="kdproxy scrub")
    found = [segment for segment in done if segment.changed]
    changed = sum(segment.changed for segment in found)
    if as_json:
        segments = [{"segment": each.segment, "lines": each.lines, "scrubbed": each.changed} for each in found]
        print_json({"segments": segments, "scrubbed": changed, "is_dry_run": dry_run})
    else:
        for each in found:
            click.echo(f"{each.segment}: {each.changed} of {counted(each.lines, 'line')}")
    if not changed:
        say("no credential stands in a stored request.")
    elif dry_run:
        say(f"{counted(changed, 'line')} would be scrubbed. Nothing is done yet: leave --dry-run out.")
        sys.exit(1)
    else:
        say(
            f"{counted(changed, 'line')} scrubbed; the next start reads the journal anew. Whoever has a copy or a "
            "backup has the credentials too: replace them at the provider."
        )
