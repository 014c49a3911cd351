"""`kdproxy verify`: check the journal and its index."""

import sys
from pathlib import Path
from typing import Any

import click

from kdproxy.cli.calls import in_flight_at_kill
from kdproxy.cli.job_runner import live_lines, open_runner, run
from kdproxy.cli.options import config_option, counted, data_dir_option, json_option, print_json, say
from kdproxy.ops.forget.choose import not_kept
from kdproxy.ops.verify import MOST_SHOWN, VerifyArguments
from kdproxy.settings import load


@click.command("verify")
@click.option("--repair", is_flag=True, help="Repair the index; the journal is never changed.")
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Repair, and accept the journal as it is: lost lines do not come back.",
)
@click.option("--answers", is_flag=True, help="Also list answers that the current rules would not store.")
@data_dir_option
@config_option
@json_option
def command(
    repair: bool, accept_loss: bool, answers: bool, data_dir: str | None, config: Path | None, as_json: bool
) -> None:
    """Read the whole journal, check every line, compare it with the index both ways. Exit code 1: problems found."""
    settings = load({"data_dir": data_dir}, config=config).settings
    findings: list[dict[str, Any]] = []
    repair = repair or accept_loss
    with open_runner(settings, command="verify", writes=repair, accepts_loss=accept_loss) as runner:
        result = run(runner, VerifyArguments(repair=repair), title="verify", report=findings.append)
        upstreams = {upstream.name: upstream for upstream in settings.upstream_models()}
        unkept = list(not_kept(live_lines(runner, title="answers"), upstreams)) if answers else []
    if as_json:
        print_json({**result, "findings": findings, **({"not_kept": unkept} if answers else {})})
    else:
        for finding in findings:
            click.echo(_sentence(finding))
        if result["problems"] > len(findings):
            click.echo(f"... and {result['problems'] - len(findings)} more.")
        for found in unkept[:MOST_SHOWN]:
            click.echo(f"{found['key'][:16]}  {found['model'] or '-'}  {found['asked']!r}: {found['reason']}")
        if len(unkept) > MOST_SHOWN:
            click.echo(f"... and {len(unkept) - MOST_SHOWN} more.")
    say(f"{counted(result['lines'], 'line')} checked, {counted(result['problems'], 'problem')} found.")
    if result["is_repaired"]:
        say("the index is repaired.")
    for hint in result["hints"]:
        say(hint)
    for line in in_flight_at_kill(result["calls"]):
        say(line)
    if answers:
        say(f"{counted(len(unkept), 'answer')} would not be stored by the current rules.")
    if unkept:
        say("`kdproxy forget --broken` withdraws them, and the next run buys exactly those again.")
    if result["problems"] or unkept:
        sys.exit(1)


def _sentence(finding: dict[str, Any]) -> str:
    match finding["kind"]:
        case "damaged":
            place = f"{finding['segment']}:{finding['line']} (byte {finding['offset']}, {finding['bytes']} long)"
            return f"{place}: {finding['reason']}"
        case "segment":
            return f"{finding['segment']}: {finding['reason']}"
        case "event":
            return f"{finding['segment']}, byte {finding['offset']}: {finding['reason']}"
        case "index":
            return f"the index cannot be used ({finding['reason']})"
        case "missing":
            return f"missing from the index: {finding['row']}"
        case "dangling":
            return f"points to no line: {finding['row']}{_at(finding, '')}"
        case "misplaced":
            return f"points to another line: {finding['row']}{_at(finding, '')}, correct is{_at(finding, 'right_')}"
        case _:
            return f"the index's sums are wrong: {finding['answers']} and {finding['prompts']} prompts"


def _at(finding: dict[str, Any], prefix: str) -> str:
    segment = finding.get(f"{prefix}segment")
    return "" if segment is None else f" {segment}, byte {finding[f'{prefix}offset']}"
