"""`kdproxy scrub`: remove credentials from a journal that an earlier release wrote."""

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
@click.option("--dry-run", is_flag=True, help="Only list where credentials were found. Exit code 1: some were found.")
@data_dir_option
@config_option
@json_option
def command(dry_run: bool, data_dir: str | None, config: Path | None, as_json: bool) -> None:
    """Replace credentials in stored requests with stars. No proxy may be running on the data directory.

    Releases before key version 2 stored request bodies unchanged. Answers, keys and names are not changed.
    """
    path = load({"data_dir": data_dir}, config=config).settings.data_dir.expanduser()
    if not is_data_directory(path):
        raise KdproxyError(
            f"{path} is not a kdproxy data directory.",
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
        say("no stored request contains a credential.")
    elif dry_run:
        say(f"{counted(changed, 'line')} would be scrubbed. Nothing has been done yet: run it without --dry-run.")
        sys.exit(1)
    else:
        say(
            f"{counted(changed, 'line')} scrubbed; the next start rebuilds the index. Copies and backups still "
            "contain the credentials: replace them at the provider."
        )
