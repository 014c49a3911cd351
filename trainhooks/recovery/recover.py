"""Find a run and read it, whichever tool wrote it and however it ended."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from trainhooks.core import epochs
from trainhooks.core.direction import Mode, direction_of
from trainhooks.core.experiment import KnownCheckpoint, MetricSummary, Run, tags_of
from trainhooks.core.metric_name import NOT_MEASURED
from trainhooks.errors import TrainhooksError
from trainhooks.recovery import column, foreign, own
from trainhooks.recovery.found import Found
from trainhooks.recovery.place import Kind, PassedOver, Place, look, reason, usual
from trainhooks.recovery.recovered import Recovered, choose_best, newest_first
from trainhooks.storage import location
from trainhooks.storage.registry import Registry
from trainhooks.storage.workspace import locate

_READERS: Mapping[Kind, Callable[[Path], Found]] = {
    Kind.TRAINHOOKS: own.read,
    Kind.HUGGING_FACE: foreign.read_hugging_face,
    Kind.LIGHTNING: foreign.read_lightning,
    Kind.TORCH: foreign.read_torch,
    Kind.SHARDED: foreign.read_sharded,
}


def recover(
    path: str | os.PathLike[str] | None = None, *, database: str | os.PathLike[str] | bool = False
) -> Recovered:
    """Find a run and return all that can be recovered of it. Trains, executes and changes nothing.

    Args:
        path: a run's folder, its `checkpoints/` or `progress/`, or a folder of runs. None: the usual places,
            relative to the working directory, and on Colab's Drive.
        database: write the recovery to an experiment database as a run of its own, `<run>_recovered`, that names its
            origin. True: `experiments.db` in the folder that the run's own folder lies in.

    Raises:
        TrainhooksError: no run was found; the message lists each place and why it was skipped.
    """
    folders = usual() if path is None or not str(path) else [(location.path("path", path).expanduser(), 1)]
    places, passed = look(folders)
    for place in places:
        try:
            recovered = _assemble(place, _READERS[place.kind](place.root), tuple(passed))
        except TrainhooksError as error:
            passed.append(PassedOver(path=place.root, reason=error.message))
        except OSError as error:
            passed.append(PassedOver(path=place.root, reason=reason(place.root, error)))
        except Exception as error:  # files of other tools, or half of one, can hold anything
            passed.append(PassedOver(path=place.root, reason=f"it cannot be read ({type(error).__name__}: {error})"))
        else:
            return _registered(recovered, database) if database else recovered
    raise _nothing(path, passed)


def _nothing(path: str | os.PathLike[str] | None, passed: Sequence[PassedOver]) -> TrainhooksError:
    where = "" if path is None or not str(path) else f" in {path}"
    if len(passed) == 1:
        listing = (
            f": {passed[0].reason}." if str(passed[0].path) in where else f": {passed[0].path}: {passed[0].reason}."
        )
    else:
        listing = ". Searched:\n" + "\n".join(f"  - {each.path}: {each.reason}" for each in passed) + "\n"
    return TrainhooksError(
        f"No run was found{where}{listing}",
        hint="Run the training first, or give recover() the folder that holds progress/, checkpoints or metrics.csv.",
        code="run_not_found",
    )


def _assemble(place: Place, found: Found, passed: tuple[PassedOver, ...]) -> Recovered:
    metrics = column.tidy(found.rows)
    best = choose_best(found.checkpoints, metrics)
    last = next(iter(newest_first(found.checkpoints)), None)
    gaps = [*found.gaps]
    if metrics.empty:
        gaps.append("No metrics were found.")
    elif "val/loss" not in metrics and (best is None or best is last):
        gaps.append("No validation loss was recorded: the last checkpoint counts as the best.")
    if last is None:
        gaps.append("No checkpoint was found.")
    if found.drift is None:
        gaps.append("No input statistics were recorded: the dashboard has six panels.")
    folder = last.path.parent if last is not None else place.root
    workspace = place.root.parent if place.root.name in {"checkpoints", "progress"} else place.root
    settings = {
        **{str(name): value for name, value in found.config.items()},
        "run_name": found.run_name,
        "output_dir": str(place.root),
        "checkpoint_dir": str(folder),
    }
    return Recovered(
        run_id=found.run_id,
        root=place.root,
        kind=place.kind,
        metrics_df=metrics,
        results={
            "run_id": found.run_id,
            "workspace_root": str(workspace),
            "best_checkpoint": None if best is None else str(best.path),
            "last_checkpoint": None if last is None else str(last.path),
            "best_val_loss": _least(metrics, "val/loss"),
            "final_train_loss": _last(metrics, "train/loss"),
            "steps": int(metrics["step"].max()) + (not found.counts_finished)
            if "step" in metrics and len(metrics)
            else None,
            "epochs": epochs.count(metrics["epoch"].dropna().unique()) if "epoch" in metrics else None,
            "status": found.status,
            "recovered": True,
        },
        workspace_root=str(workspace),
        training_config=SimpleNamespace(**settings),
        drift_data=found.drift,
        best_checkpoint=best,
        last_checkpoint=last,
        checkpoints=found.checkpoints,
        provenance=found.provenance,
        gaps=tuple(gaps),
        passed_over=passed,
        resumes=found.resumes,
        rewinds=found.rewinds,
        total_steps=found.total_steps,
        sessions=found.sessions,
        status=found.status,
    )


def _registered(recovered: Recovered, database: str | os.PathLike[str] | bool) -> Recovered:
    path = locate(database, recovered.root)
    assert path is not None
    with closing(Registry(path)) as registry:
        run_id = registry.record_recovery(as_run(recovered), created_at=time.time())
    return replace(recovered, run_id=run_id, results={**recovered.results, "run_id": run_id})


def as_run(recovered: Recovered) -> Run:
    """Return the record of a run for the experiment database."""
    config = vars(recovered.training_config)
    return Run(
        run_id=recovered.run_id,
        origin=None,
        name=recovered.run_name,
        directory=str(recovered.root.absolute()),
        config=config,
        created_at=float(recovered.provenance.get("created_at") or time.time()),
        total_steps=recovered.total_steps,
        metrics=tuple(_summaries(recovered.metrics_df)),
        checkpoints=tuple(
            KnownCheckpoint(
                path=str(saved.path.absolute()),
                step=saved.step,
                created_at=saved.created_at,
                metrics=dict(saved.metrics),
            )
            for saved in recovered.checkpoints
        ),
        tags=tags_of(config, (tag for saved in recovered.checkpoints for tag in saved.tags)),
        sessions=recovered.sessions,
    )


def _summaries(metrics: Any) -> Iterator[MetricSummary]:
    for name in metrics.select_dtypes("number"):
        measured = metrics[metrics[name].notna()]
        if len(measured) and name not in NOT_MEASURED:
            yield MetricSummary(
                name=str(name),
                best=float(measured[name].max() if direction_of(str(name)) is Mode.MAX else measured[name].min()),
                last=float(measured[name].iloc[-1]),
                rows=len(measured),
                step=int(measured["step"].iloc[-1]) if "step" in measured else None,
            )


def _least(metrics: Any, name: str) -> float | None:
    return float(metrics[name].min()) if name in metrics and metrics[name].notna().any() else None


def _last(metrics: Any, name: str) -> float | None:
    return float(metrics[name].dropna().iloc[-1]) if name in metrics and metrics[name].notna().any() else None
