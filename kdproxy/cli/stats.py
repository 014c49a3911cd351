"""`kdproxy stats`: show what is stored, and what a running proxy has done."""

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from kdproxy.cli import calls
from kdproxy.cli.job_runner import JobRunner, open_runner, run
from kdproxy.cli.options import config_option, data_dir_option, json_option, print_json
from kdproxy.cli.progress import shown
from kdproxy.core import record as record_format
from kdproxy.core.models import Record
from kdproxy.engine.repeats import advice_on
from kdproxy.ops.event import Line
from kdproxy.ops.export import ExportArguments
from kdproxy.ops.stats import StatsArguments, totals
from kdproxy.settings import load

_UNKNOWN = "unknown"
_WIDE = 200


@click.command("stats")
@click.option("--quick", is_flag=True, help="Leave out tokens and dollars by model: they need every line.")
@data_dir_option
@config_option
@json_option
def command(quick: bool, data_dir: str | None, config: Path | None, as_json: bool) -> None:
    """Show what is stored by upstream, endpoint and model, and what the proxy that runs on it has done."""
    settings = load({"data_dir": data_dir}, config=config).settings
    with open_runner(settings, command="stats", writes=False) as runner:
        sums = run(runner, StatsArguments(), title="stats", report=lambda _: None)
        rows = None if quick else totals(_records(runner))
    sums = {"data_dir": str(settings.data_dir), **sums, "by_model": rows}
    if as_json:
        print_json(sums)
    else:
        _show(sums)


def _records(runner: JobRunner) -> Iterator[Record]:
    for event in shown(runner.start(ExportArguments()), title="stats"):
        if isinstance(event, Line):
            yield record_format.decode(event.text)


def _show(sums: dict[str, Any]) -> None:
    # In a pipe or a file the tables are as wide as they need to be.
    console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
    head = Table("what", "how much", box=None, show_header=False)
    head.add_row("data directory", sums["data_dir"])
    head.add_row("answers", str(sums["answers"]))
    for upstream, count in sums["answers_by_upstream"].items():
        head.add_row(f"  of {upstream}", str(count))
    head.add_row("recorded prompts", str(sums["prompts"]))
    head.add_row("journal", f"{sums['journal_bytes']:,} bytes in {sums['segments']} files")
    for what, how_much in calls.rows(sums["calls"]):
        head.add_row(what, how_much)
    console.print(head)
    for line in calls.in_flight_at_kill(sums["calls"]):
        console.print(line)
    if sums["by_model"]:
        console.print(_model_table(sums["by_model"]))
        for line in (*_unpriced(sums["by_model"]), *_ends(sums["by_model"])):
            console.print(line)
    if sums["serving"] is not None:
        console.print(_ledger_table(sums["serving"]))
        if (advice := advice_on(sums["serving"].get("repeats", {}))) is not None:
            console.print(advice, highlight=False)
        if sums["serving"].get("lanes"):
            console.print(_lane_table(sums["serving"]["lanes"]))


def _model_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("upstream", "endpoint", "model", title="Stored")
    for name in ("answers", "tokens in", "tokens out", "USD", "unpriced"):
        table.add_column(name, justify="right")
    for row in rows:
        counts = [_known(row[name]) for name in ("answers", "input_tokens", "output_tokens")]
        table.add_row(
            row["upstream"] or "-",
            row["endpoint"],
            row["model"] or "-",
            *counts,
            row["usd"] or _UNKNOWN,
            f"{row['unpriced_answers']:,}",
        )
    return table


def _unpriced(rows: list[dict[str, Any]]) -> list[str]:
    """Return how many answers have no known price, and why."""
    reasons: Counter[str] = Counter()
    for row in rows:
        reasons.update(row["unpriced_reasons"])
    return [f"{count:,} without a price: {reason}" for reason, count in reasons.most_common()]


def _ends(rows: list[dict[str, Any]]) -> list[str]:
    """Return how choices ended, in the providers' words, and how many answers a content policy refused."""
    finish: Counter[str] = Counter()
    for row in rows:
        finish.update(row["finish"])
    refused = sum(row["refused_answers"] for row in rows)
    words = ", ".join(f"{word} {count:,}" for word, count in finish.most_common())
    return [f"finish reasons: {words}"] * bool(words) + [f"{refused:,} refused by a content policy"] * bool(refused)


def _known(count: int | None) -> str:
    return _UNKNOWN if count is None else f"{count:,}"


def _ledger_table(serving: dict[str, Any]) -> Table:
    table = Table("what", "how much", title=f"Proxy {serving['pid']} at {serving['address']}", show_header=False)
    for name, value in serving["ledger"].items():
        if isinstance(value, dict):
            for part, count in value.items():
                table.add_row(f"{name.replace('_', ' ')}: {part.replace('_', ' ')}", str(count))
        else:
            table.add_row(name.replace("_", " "), _UNKNOWN if value is None else str(value))
    return table


def _lane_table(lanes: list[dict[str, Any]]) -> Table:
    table = Table("upstream", "model", "key", "limits (left of limit)", title="Lanes")
    for name in ("queued", "in flight", "429s", "longest wait", "drained in", "state"):
        table.add_column(name, justify="right")
    for lane in lanes:
        limits = [
            f"{'?' if each['left'] is None else format(each['left'], ',.0f')} of {each['limit']:,.0f} {name}"
            for name, each in lane["limits"].items()
            if each["limit"] is not None
        ]
        table.add_row(
            lane["upstream"],
            lane["model"] or "-",
            lane["credential"][:6],
            "\n".join(limits) or "unknown",
            f"{lane['queued']:,}",
            f"{lane['in_flight']} of {lane['in_flight_bound']}",
            f"{lane['rate_limited']:,}",
            f"{lane['longest_wait_seconds']:,.0f} s",
            "?" if lane["drain_seconds"] is None else f"{lane['drain_seconds']:,.0f} s",
            _lane_state(lane),
        )
    return table


def _lane_state(lane: dict[str, Any]) -> str:
    if lane["stopped"] is not None:
        stop = lane["stopped"]
        what = "parked" if stop["policy"] == "park" else "closed"
        back = "" if stop["back_seconds"] is None else f", back in {stop['back_seconds']:,.0f} s"
        return f"{what}: {stop['reason']}{back}, next probe in {stop['next_look_seconds']:,.0f} s"
    if lane["breaker"] == "open":
        return "upstream down"
    return f"paused {lane['paused_seconds']:,.0f} s" if lane["paused_seconds"] else "open"
