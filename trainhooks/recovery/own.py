"""Our own runs: session.json, metrics.jsonl, checkpoint directories. Read beside a process that writes, without torch.

If metrics.jsonl is large, a columnar copy of the rows (`progress/metrics.parquet`) is written, and used as long as
metrics.jsonl does not change.
"""

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from trainhooks.core import distribution
from trainhooks.core import row as rows
from trainhooks.core.experiment import RUNNING, run_name, sessions_of
from trainhooks.errors import SessionInvalid, TrainhooksError
from trainhooks.recovery import frame
from trainhooks.recovery.found import Found, SavedModel
from trainhooks.session.inputs import INPUTS
from trainhooks.storage import inspection, metrics, session
from trainhooks.storage.branch import EVENT
from trainhooks.storage.catalog import Recoverable
from trainhooks.storage.checkpoints import CHECKPOINTS, published, set_aside

_SIDECAR = "metrics.parquet"
_SIDECAR_FROM_BYTES = 8 << 20
_SOURCE = "trainhooks_source"


def read(root: Path) -> Found:
    """Read a run of ours, finished, killed or running; without session.json, as much as the other files hold.

    Raises:
        TrainhooksError: there is no session.json, no row and no checkpoint.
    """
    gaps: list[str] = []
    members = _session(root, gaps)
    table, events = _metrics(root, gaps)
    resumes = list(_resumes(events))
    attempts: list[dict[str, Any]] = members["attempts"]
    config: dict[str, Any] = members.get("config") or {}
    state = str(inspection.status(root)["state"]) if "created_at" in members else None
    checkpoints = inspection.recoverable(root)
    live = {entry.path for entry in inspection.live_of(root, checkpoints)}
    if "created_at" not in members and table.empty and not checkpoints:
        raise TrainhooksError(
            f"{gaps[0]} No row and no checkpoint were found either.", hint="Name another run.", code="run_unreadable"
        )
    _look_for_lost_rows(table, checkpoints, gaps)
    if aside := set_aside(root / CHECKPOINTS):
        gaps.append(f"{len(aside)} damaged checkpoints are in {aside[0][0].parent}, each with the reason beside it.")
    return Found(
        run_id=str(members["session_id"]),
        run_name=run_name(config, root.resolve().name, members["session_id"]),
        rows=table,
        checkpoints=tuple(
            SavedModel(
                path=root / entry.path,
                step=entry.step,
                metrics=entry.metrics,
                tags=entry.tags,
                created_at=entry.created_at,
                is_abandoned=entry.path not in live,
                is_ours=not entry.is_registered,
            )
            for entry in checkpoints
        ),
        config=config,
        provenance={
            **(attempts[-1].get("provenance") or {} if attempts else {}),
            "session_id": members["session_id"],
            "created_at": members.get("created_at"),
            "attempts": len(attempts),
            "config_sha256": members.get("config_sha256"),
        },
        drift=_drift(events),
        resumes=tuple(start for start, _ in resumes),
        rewinds=tuple((start, end) for start, end in resumes if end > start),
        total_steps=members.get("total_steps"),
        sessions=sessions_of(attempts, running=attempts[-1]["attempt"] if state == RUNNING else None),
        status=state,
        gaps=tuple(gaps),
    )


def _session(root: Path, gaps: list[str]) -> dict[str, Any]:
    """Return session.json, or a substitute: the run is then named after its checkpoints or its folder."""
    try:
        members = session.read(root / "progress" / session.NAME)
        trouble = "session.json is missing"
    except SessionInvalid as error:
        members, trouble = None, error.message.rstrip(".")
    if members is not None:
        return members
    gaps.append(f"{trouble}: the run's configuration and attempts are unknown.")
    named = next((each.manifest.session_id for each in published(root / CHECKPOINTS)), root.resolve().name)
    return {"session_id": named, "attempts": []}


def _look_for_lost_rows(table: pd.DataFrame, checkpoints: Iterable[Recoverable], gaps: list[str]) -> None:
    """A checkpoint is published only once every row before it is durable."""
    saved = max((entry.step for entry in checkpoints if not entry.is_registered), default=0)
    recorded = int(table["step"].max()) + 1 if "step" in table and len(table) else 0
    if 0 < recorded < saved:
        gaps.append(f"metrics.jsonl ends at step {recorded - 1}, but a checkpoint has {saved} steps: rows are lost.")


Event = tuple[dict[str, Any], int]
"""(an event's members, the steps that the rows before it had reached)."""


def _metrics(root: Path, gaps: list[str]) -> tuple[pd.DataFrame, list[Event]]:
    path = root / "progress" / metrics.NAME
    if not path.is_file():
        gaps.append("metrics.jsonl is missing: no metrics were recorded.")
        return pd.DataFrame(), []
    source = _identity(path)
    events = list(_events(path))
    table = _sidecar(path.with_name(_SIDECAR), source)
    if table is None:
        table = frame.read(path, gaps)
        if path.stat().st_size >= _SIDECAR_FROM_BYTES:
            _leave_sidecar(table, path.with_name(_SIDECAR), source)
    return table, events


def _events(path: Path) -> Iterator[Event]:
    last = b""
    for block in metrics.read_blocks(path):
        if EVENT not in block:
            last = block[block.rfind(b"\n", 0, -1) + 1 :]
            continue
        for line in block.split(b"\n")[:-1]:
            if EVENT not in line:
                last = line
            elif (members := rows.decode(line)) is not None and "kind" in members:
                yield members, int((rows.decode(last) or {}).get("step", -1)) + 1


def _resumes(events: Iterable[Event]) -> Iterator[tuple[int, int]]:
    """Yield (the step an attempt resumed at, the steps that the previous one had reached)."""
    for members, reached in events:
        if members["kind"] == rows.ATTEMPT and (start := members.get("from_step")):
            yield start, reached


def _drift(events: Iterable[Event]) -> pd.DataFrame | None:
    """Return one row per window of inputs, with its distances from the first one; None if none was recorded."""
    windows: dict[int, Mapping[str, Mapping[str, int]]] = {}
    for members, _ in events:
        if members["kind"] == rows.ATTEMPT and (start := members.get("from_step")) is not None:
            windows = {step: counts for step, counts in windows.items() if step < start}
        elif members["kind"] == INPUTS:
            windows[members["step"]] = members["counts"]
    if not windows:
        return None
    first = windows[min(windows)]
    made = []
    for step, window in sorted(windows.items()):
        row: dict[str, float] = {"step": step}
        for feature, counts in window.items():
            if feature in first:
                row[f"{feature}/psi"] = distribution.population_stability_index(counts, first[feature])
                row[f"{feature}/kl"] = distribution.kullback_leibler(counts, first[feature])
                row[f"{feature}/js"] = distribution.jensen_shannon(counts, first[feature])
        made.append(row)
    return pd.DataFrame.from_records(made)


def _identity(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size}:{found.st_mtime_ns}"


def _sidecar(path: Path, source: str) -> pd.DataFrame | None:
    if not path.is_file():
        return None
    try:
        import pyarrow.parquet as pq
    except ImportError:
        return None
    try:
        found = pq.read_table(path)
    except (OSError, ValueError):
        return None
    if (found.schema.metadata or {}).get(_SOURCE.encode()) != source.encode():
        return None
    table: pd.DataFrame = found.to_pandas()
    return table


def _leave_sidecar(table: pd.DataFrame, path: Path, source: str) -> None:
    """Write the columnar copy, if this reader can write."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError, ValueError, pa.ArrowException):
        made = pa.Table.from_pandas(table, preserve_index=False)
        pq.write_table(made.replace_schema_metadata({**(made.schema.metadata or {}), _SOURCE: source}), scratch)
        scratch.replace(path)
    scratch.unlink(missing_ok=True)
