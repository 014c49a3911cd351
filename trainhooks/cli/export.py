"""`trainhooks export`: a run's metrics as CSV or Parquet."""

from pathlib import Path

import click


@click.command("export")
@click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(["csv", "parquet"]), default="csv", show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Workspace folder.  [the run's own]")
def command(directory: Path | None, kind: str, out: Path | None) -> None:
    """Write the metrics of the run in DIR, one row per step, to WORKSPACE/results/RUN_metrics.csv."""
    from trainhooks.recovery import recover
    from trainhooks.views.export import export

    run = recover(directory)
    click.echo(str(export(run.metrics_df, out or run.workspace_root, run.run_name, kind=kind)))
