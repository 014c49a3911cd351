"""`kdproxy forget`: withdraw bad answers."""

from dataclasses import replace
from pathlib import Path

import click

from kdproxy.cli.job_runner import JobRunner, live_lines, open_runner, run
from kdproxy.cli.options import config_option, counted, data_dir_option, json_option, print_json, say
from kdproxy.errors import KdproxyError
from kdproxy.ops.forget.choose import Chosen, Wish, choose, compile_wish
from kdproxy.ops.forget.withdraw import WithdrawArguments
from kdproxy.settings import load

_MOST_SHOWN = 20
_AT_ONCE = 1_000


@click.command("forget")
@click.option("--key", metavar="HEX", help="The answers with this key, as Cache-Status shows it; 8 digits or more.")
@click.option("--sample", metavar="N", type=click.IntRange(min=0), help="Only this sample; default: all of a question.")
@click.option("--match", metavar="REGEX", help="Answers whose text, or whose question's text, matches.")
@click.option("--finish-reason", metavar="REASON", help="Answers with this finish reason: length, content_filter, ...")
@click.option("--invalid-json", is_flag=True, help="Answers that should be JSON and are not.")
@click.option("--empty", is_flag=True, help="Answers without any generated content.")
@click.option("--broken", is_flag=True, help="Answers that the current rules would not store: cut off, failed, empty.")
@click.option("--yes", is_flag=True, help="Withdraw them; without --yes they are only listed.")
@data_dir_option
@config_option
@json_option
def command(
    key: str | None,
    sample: int | None,
    match: str | None,
    finish_reason: str | None,
    invalid_json: bool,
    empty: bool,
    broken: bool,
    yes: bool,
    data_dir: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Withdraw answers, so that the next run buys exactly those again. Their lines stay in the journal.

    An answer must match all the options that are given.
    """
    wish = Wish(
        key=key,
        ordinal=sample,
        match=match,
        finish_reason=finish_reason,
        invalid_json=invalid_json,
        empty=empty,
        broken=broken,
    )
    try:
        compile_wish(wish)
    except KdproxyError as error:
        raise click.UsageError(str(error)) from error
    settings = load({"data_dir": data_dir}, config=config).settings
    wish = replace(wish, upstreams={upstream.name: upstream for upstream in settings.upstream_models()})
    with open_runner(settings, command="forget", writes=yes) as runner:
        chosen = choose(live_lines(runner, title="forget"), wish)
        withdrawn = _withdraw(runner, chosen, wish.reason) if yes else 0
    if as_json:
        samples = [found.members for found in chosen]
        print_json({"samples": samples, "found": len(chosen), "withdrawn": withdrawn, "is_dry_run": not yes})
    else:
        for found in chosen[:_MOST_SHOWN]:
            shown = f"  sample {found.ordinal}" if found.ordinal else ""
            click.echo(f"{found.key[:16]}{shown}  {found.model or '-'}  {found.asked!r} -> {found.answered!r}")
        if len(chosen) > _MOST_SHOWN:
            click.echo(f"... and {len(chosen) - _MOST_SHOWN} more.")
    if not chosen:
        say("no stored answer matches.")
    elif yes:
        say(f"{counted(withdrawn, 'answer')} withdrawn; the next request for each buys it again.")
        if withdrawn < len(chosen):
            say(f"{len(chosen) - withdrawn} changed in the meantime and were left alone.")
    else:
        say(f"{counted(len(chosen), 'answer')} would be withdrawn. Nothing has been done yet: add --yes.")


def _withdraw(runner: JobRunner, chosen: list[Chosen], reason: str) -> int:
    withdrawn = 0
    for first in range(0, len(chosen), _AT_ONCE):
        samples = tuple(found.sample for found in chosen[first : first + _AT_ONCE])
        result = run(runner, WithdrawArguments(samples=samples, reason=reason), title="forget", report=lambda _: None)
        withdrawn += result["withdrawn"]
    return withdrawn
