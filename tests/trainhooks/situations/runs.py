"""Runs a situation uninterrupted, and again with stops and resumes in one process: both are to be one training."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from trainhooks import TrainingProgressContext, training_progress_context

TOTAL = 11
STOPS = (2, 3, 7)
"""Finished steps at which a run is left; twice within one epoch."""


@dataclass
class Made:
    """What a script builds anew in each process."""

    source: Any = None
    options: Mapping[str, Any] = field(default_factory=dict)
    model: nn.Module = field(default_factory=lambda: nn.Linear(1, 1))
    state: dict[str, Any] = field(default_factory=dict)
    body: Callable[[TrainingProgressContext, int, Any], Any] = lambda progress, step, batch: None
    """Returns what else of the step is compared."""
    opened: Callable[[TrainingProgressContext], object] = lambda progress: None
    """Runs after the loader is made."""
    total: int = TOTAL


def plain(value: Any) -> Any:
    """A value that can be compared."""
    if isinstance(value, torch.Tensor):
        return value.detach().tolist()
    if isinstance(value, Mapping):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return value


def run(out: Path, make: Callable[[], Made], stop: int | None = None, **options: Any) -> list[Any]:
    """One attempt, left when `stop` steps are finished; returns step, batch and what the body returned."""
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    made = make()
    seen: list[Any] = []
    state = {"model": made.model, **made.state}
    with training_progress_context({"seed": 1}, out, made.total, state=state, database=False, **options) as progress:
        if made.source is not None:
            progress.loader(made.source, **made.options)
        made.opened(progress)
        for step, batch in progress.steps():
            seen.append((step, plain(batch), plain(made.body(progress, step, batch))))
            if step + 1 == stop:
                progress.save_checkpoint()
                break
    seen.append(("end", plain(made.model.state_dict())))
    return seen


def whole_and_cut(
    tmp_path: Path, make: Callable[[], Made], stops: tuple[int, ...] = STOPS
) -> tuple[list[Any], list[Any]]:
    """Return what an uninterrupted run saw, and what one that was left and resumed at each of `stops` saw."""
    whole = run(tmp_path / "whole", make)
    cut: list[Any] = []
    for stop in (*stops, None):
        cut = [*cut[:-1], *run(tmp_path / "cut", make, stop)]
    return whole, cut
