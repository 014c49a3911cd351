"""`trainhooks recover`: what can be recovered of a run."""

from pathlib import Path

import click

from trainhooks.cli.options import json_option, print_json


@click.command("recover")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option(
    "--database", type=click.Path(path_type=Path, dir_okay=False), help="Record the recovery there as a run of its own."
)
@json_option
def command(directory: Path | None, database: Path | None, as_json: bool) -> None:
    """Find the run in DIR, or in the usual places; report what was found, what is missing, and what was skipped."""
    from trainhooks.recovery import recover

    run = recover(directory, database=database or False)
    if as_json:
        print_json(
            {
                **run.results,
                "run_name": run.run_name,
                "kind": run.kind,
                "root": str(run.root),
                "rows": len(run.metrics_df),
                "gaps": list(run.gaps),
                "passed_over": [{"path": str(each.path), "reason": each.reason} for each in run.passed_over],
            }
        )
        return
    click.echo(str(run))
    for name, value in run.results.items():
        if value is not None:
            click.echo(f"  {name}: {value}")
    for gap in run.gaps:
        click.echo(f"  missing: {gap}")
    for each in run.passed_over:
        click.echo(f"  skipped: {each.path}: {each.reason}")
