"""What a reader found in a run's folder, before it becomes tables."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from trainhooks.core.experiment import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedModel:
    """One checkpoint of any kind."""

    path: Path
    step: int | None = None
    epoch: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    created_at: float | None = None
    """UTC Unix seconds, if its writer recorded it."""
    order: int | None = None
    """Its place among the checkpoints of its run, oldest first, if known."""
    is_abandoned: bool = False
    """Its step is after one that the run was rolled back to."""
    is_ours: bool = False
    """Written by trainhooks: verified against its manifest before it is used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A run as read."""

    run_id: str
    run_name: str
    rows: pd.DataFrame
    """As the writer named its columns."""
    counts_finished: bool = False
    """Whether a row's step counts finished steps; else steps are numbered from 0 on."""
    checkpoints: tuple[SavedModel, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    drift: pd.DataFrame | None = None
    resumes: tuple[int, ...] = ()
    rewinds: tuple[tuple[int, int], ...] = ()
    total_steps: int | None = None
    status: str | None = None
    sessions: tuple[Session, ...] = ()
    gaps: tuple[str, ...] = ()
    """What is missing or unreadable, one sentence each."""
