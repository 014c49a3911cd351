"""`kdproxy runs`: list runs, show one, give samples back, rename one."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from kdproxy.cli.job_runner import open_runner, run
from kdproxy.cli.options import config_option, counted, data_dir_option, json_option, print_json, say
from kdproxy.ops import job
from kdproxy.ops.runs.change import RenameRunArguments, RewindRunArguments
from kdproxy.ops.runs.show import ListRunsArguments, ShowRunArguments
from kdproxy.settings import load

_MOST_SHOWN = 20


@click.group("runs")
def command() -> None:
    """List runs, show one, give samples back, rename one. docs/samples.md says what a run is."""


@command.command("list")
@data_dir_option
@config_option
@json_option
def list_command(data_dir: str | None, config: Path | None, as_json: bool) -> None:
    """List the runs, the latest last: attempts, when they were opened, samples that were used."""
    result = _result(ListRunsArguments(), data_dir, config, writes=False)
    if as_json:
        print_json(result)
        return
    for each in result["runs"]:
        click.echo(
            f"{each['run']}  {counted(each['attempts'], 'attempt')}, the last one {each['last_attempt']} of "
            f"{_at(each['last_opened_at'])}  {counted(each['used_in_last_attempt'], 'sample')} used in it, "
            f"{each['used']} in all"
        )
    if not result["runs"]:
        say("no run in this data directory. `kdproxy run -- CMD` starts one.")


@command.command("show")
@click.argument("name")
@click.option("--quick", is_flag=True, help="Leave out what was bought: it needs every line of both logs.")
@data_dir_option
@config_option
@json_option
def show_command(name: str, quick: bool, data_dir: str | None, config: Path | None, as_json: bool) -> None:
    """Show a run: its attempts, used samples by scope, what was bought, and what may never have been read."""
    result = _result(ShowRunArguments(run=name, bill=not quick), data_dir, config, writes=False)
    if as_json:
        print_json(result)
        return
    for line in _shown(result):
        click.echo(line)


@command.command("rewind")
@click.argument("name")
@click.option("--attempt", metavar="TOKEN", help="The attempt; default: the last one.")
@click.option("--unread", is_flag=True, help="Give back the samples that their client may never have read.")
@click.option("--last", metavar="N", type=click.IntRange(min=1), help="Give back the N samples that were used last.")
@click.option("--to", metavar="CURSOR", help="Give back what was used after this cursor: its JSON, or its event.")
@click.option("--dry-run", is_flag=True, help="Only say which.")
@data_dir_option
@config_option
@json_option
def rewind_command(
    name: str,
    attempt: str | None,
    unread: bool,
    last: int | None,
    to: str | None,
    dry_run: bool,
    data_dir: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Give used samples of an attempt back: the next requests for them get the same answers again, at no cost."""
    if unread + (last is not None) + (to is not None) != 1:
        raise click.UsageError("Give one of --unread, --last N and --to CURSOR.")
    arguments = RewindRunArguments(run=name, attempt=attempt, unread=unread, last=last, to=to, dry_run=dry_run)
    result = _result(arguments, data_dir, config, writes=not dry_run)
    if as_json:
        print_json(result)
        return
    for sample in result["samples"][-_MOST_SHOWN:]:
        missing = "" if sample["is_stored"] else "  not stored"
        click.echo(f"{sample['key']}  sample {sample['ordinal']}{missing}")
    if result["given_back"] > _MOST_SHOWN:
        click.echo(f"... and {result['given_back'] - _MOST_SHOWN} earlier.")
    say(_rewound(result))


@command.command("rename")
@click.argument("old")
@click.argument("new")
@data_dir_option
@config_option
@json_option
def rename_command(old: str, new: str, data_dir: str | None, config: Path | None, as_json: bool) -> None:
    """Give a run another name. Its attempts and samples stay as they are."""
    result = _result(RenameRunArguments(run=old, new=new), data_dir, config, writes=True)
    if as_json:
        print_json(result)
    else:
        say(
            f"the run {old!r} is named {new!r} now. Clients of a running proxy may use the old name until it ends; "
            "after that the old name opens a new run: change your scripts."
        )


def _result(arguments: job.Arguments, data_dir: str | None, config: Path | None, *, writes: bool) -> dict[str, Any]:
    settings = load({"data_dir": data_dir}, config=config).settings
    with open_runner(settings, command="runs", writes=writes) as runner:
        return run(runner, arguments, title="runs", report=lambda _: None)


def _shown(result: dict[str, Any]) -> Iterator[str]:
    yield f"run {result['run']}"
    for each in result["attempts"]:
        yield f"  attempt {each['attempt']}  opened {_at(each['opened_at'])}  {counted(each['used'], 'sample')} used"
        if list(each["used_by_scope"]) not in ([], [""]):
            for scope, used in each["used_by_scope"].items():
                yield f"    scope {scope or '(none)'}  {counted(used, 'sample')} used"
    bought = result["bought"]
    if bought is not None:
        usd = "an unknown amount" if bought["usd"] is None else f"{bought['usd']} USD"
        unpriced = f", {bought['unpriced']} without a price" if bought["unpriced"] else ""
        yield (
            f"bought: {counted(bought['calls'], 'call')}, {bought['kept']} stored, {bought['input_tokens']} tokens in, "
            f"{bought['output_tokens']} out, {usd}{unpriced}"
        )
    if result["unread_samples"]:
        yield f"{counted(result['unread_samples'], 'delivered sample')} may never have been read:"
        for sample in result["unread"][-_MOST_SHOWN:]:
            how = "reset" if sample["was_reset"] else "closed right after the delivery"
            yield f"  attempt {sample['attempt']}  {sample['key']}  sample {sample['ordinal']}  connection {how}"
        if result["unread_samples"] > _MOST_SHOWN:
            yield f"  ... and {result['unread_samples'] - _MOST_SHOWN} earlier."
        yield f"`kdproxy runs rewind {result['run']} --unread` gives those of the last attempt back, at no cost."


def _rewound(result: dict[str, Any]) -> str:
    count = result["given_back"]
    if not count:
        return "nothing to give back."
    will = "would be" if result["is_dry_run"] else "will be"
    text = f"attempt {result['attempt']}: {counted(count, 'sample')} {will} given again"
    bought = count - result["stored"]
    text += ", at no cost." if not bought else f"; {counted(bought, 'answer')} of them not stored and bought again."
    return f"{text} Nothing has been done yet: leave out --dry-run." if result["is_dry_run"] else text


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(sep=" ", timespec="seconds")
