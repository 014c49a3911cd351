"""`trainhooks lineage`: which samples and which stored teacher answers each step used."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from trainhooks.cli.options import json_option, print_json, run_argument
from trainhooks.core.lineage import StepLineage
from trainhooks.errors import TrainhooksError
from trainhooks.storage import inspection
from trainhooks.storage.bill import read_bill
from trainhooks.storage.lineage import Lineage, read_lineage


@click.command("lineage")
@click.option("--step", type=click.IntRange(min=0), help="Show the samples of this step and their answers.")
@click.option(
    "--key", metavar="HEX", help="Show the steps that used answers to this question; the first digits suffice."
)
@click.option(
    "--journal",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="kdproxy's data directory: show what the answers cost.",
)
@run_argument
@json_option
def command(directory: Path, step: int | None, key: str | None, journal: Path | None, as_json: bool) -> None:
    """Show which samples and stored answers the steps of the run in DIR used: a summary, one step, or one answer."""
    found = read_lineage(inspection.find(directory))
    if journal is not None:
        _show_bill(found, step, journal, as_json)
    elif step is not None:
        _show_step(found, step, as_json)
    elif key is not None:
        steps = found.steps_of_key(key.lower())
        print_json({"key": key, "steps": steps}) if as_json else click.echo("\n".join(map(str, steps)) or "no step")
    else:
        _show_summary(_summary(found), as_json)


def _show_bill(found: Lineage, step: int | None, journal: Path, as_json: bool) -> None:
    steps = found.steps.values() if step is None else [_step(found, step)]
    bill = read_bill(journal, {key for of in steps for key, _ in of.answers})
    if as_json:
        print_json({**asdict(bill), "cost_usd": str(bill.cost_usd)})
        return
    click.echo(f"{bill.found} of {bill.questions} questions are in the journal, {bill.answers} answers were bought")
    click.echo(f"{bill.input_tokens:,} tokens in, {bill.output_tokens:,} out, {bill.cost_usd} USD")
    if bill.without_cost:
        click.echo(f"{bill.without_cost} answers have no recorded price")


def _step(found: Lineage, step: int) -> StepLineage:
    if step not in found.steps:
        raise TrainhooksError(f"Step {step} is not recorded.", hint="`trainhooks tail` shows the last ones.")
    return found.steps[step]


def _show_step(found: Lineage, step: int, as_json: bool) -> None:
    of = _step(found, step)
    if as_json:
        print_json(asdict(of))
        return
    rank = f", rank 0 of {of.ranks}" if of.ranks > 1 else ""
    worker = "" if of.worker is None else f", worker {of.worker}"
    click.echo(f"step {step}, epoch {'unknown' if of.epoch is None else of.epoch}{worker}{rank}")
    for name, keys in _samples(of):
        click.echo(f"  sample {name}  {_text(keys)}")
    if of.ids is None and of.keys is None:
        click.echo("  samples unknown")
    if of.asked:
        click.echo(f"  asked by the loop  {_text(of.asked)}")


def _samples(of: StepLineage) -> list[tuple[Any, Any]]:
    ids = of.ids if of.ids is not None else ("unknown",) * len(of.keys or ())
    return list(zip(ids, of.keys if of.keys is not None else ((),) * len(ids), strict=True))


def _text(keys: Any) -> str:
    return ", ".join(key if ordinal is None else f"{key} ordinal {ordinal}" for key, ordinal in keys) or "unknown"


def _summary(found: Lineage) -> dict[str, int]:
    samples, known = set[Any](), set[Any]()
    answers = set[tuple[str, int | None]]()
    for of in found.steps.values():
        answers.update(of.answers)
        for name, keys in _samples(of):
            samples.add((of.worker, name))
            if keys:
                known.add((of.worker, name))
    return {
        "steps": len(found.steps),
        "steps_with_answers": sum(bool(of.answers) for of in found.steps.values()),
        "samples": len(samples),
        "samples_with_answers": len(known),
        "answers": len(answers),
    }


def _show_summary(counts: dict[str, int], as_json: bool) -> None:
    if as_json:
        print_json(counts)
        return
    click.echo(f"{counts['steps']} steps, {counts['steps_with_answers']} with known answers")
    click.echo(f"{counts['samples']} samples, {counts['samples_with_answers']} with known answers")
    click.echo(f"{counts['answers']} stored answers; --step N and --key HEX show more")
