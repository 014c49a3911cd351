"""Accelerate: the user owns the loop, so a session does everything; or Accelerate saves, and receipts verify it.

    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)  # not the data
    state = training_state(accelerator, model=model, optimizer=optimizer, scheduler=scheduler)
    with training_progress_context(config, "run", total_steps, state=state) as progress:
        progress.loader(dataset, batch_size=8)
        for step, batch in progress.steps():
            with accelerator.accumulate(model):
                ...

resumes exactly, also inside an accumulation window. Where only Accelerate can save (FSDP, DeepSpeed), `save_state` and
`load_state` replace its own two: what they resume, and how exactly, is up to Accelerate.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from trainhooks.core import argument
from trainhooks.errors import StateUnsupported
from trainhooks.pytorch.distributed import connect
from trainhooks.session import ProgressTracker
from trainhooks.storage import receipts

try:
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from accelerate.scheduler import AcceleratedScheduler
    from accelerate.utils import DistributedType
except ImportError as error:
    raise ImportError(f"This integration needs Accelerate ({error}). Hint: pip install accelerate") from error

_WHOLE = (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU)
"""Where every rank has the whole model, so that `state=` can save it."""


def training_state(accelerator: Accelerator, **objects: Any) -> dict[str, Any]:
    """Return the value for `state=`: prepared objects without their wrappers, and the Accelerator's own counters.

    Args:
        objects: model, optimizer, scheduler and so on, after `accelerator.prepare`, by the names they are saved under.

    Raises:
        StateUnsupported: the model is sharded over the ranks.
    """
    _check(accelerator)
    if accelerator.distributed_type not in _WHOLE:
        raise StateUnsupported(
            f"With {accelerator.distributed_type} no rank has the whole model.",
            hint="Use trainhooks.integrations.accelerate.save_state and load_state in place of state=.",
        )
    state = {name: _bare(accelerator, each) for name, each in objects.items()}
    if accelerator.scaler is not None:
        state["scaler"] = accelerator.scaler
    return {**state, "accelerator": AccumulationWindow(accelerator)}


class AccumulationWindow:
    """The position of an Accelerator in an accumulation window."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator

    def state_dict(self) -> dict[str, Any]:
        """Return how many batches it has counted."""
        return {"step": self._accelerator.step, "sync_gradients": self._accelerator.sync_gradients}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue counting from there."""
        self._accelerator.step = state["step"]
        self._accelerator.sync_gradients = state["sync_gradients"]


def save_state(accelerator: Accelerator, progress: ProgressTracker) -> Path:
    """Let Accelerate save to `output_dir/checkpoint-STEP`, and issue a receipt; return once both are durable.

    Call it on all ranks, when `progress.current_step` steps are finished.

    Raises:
        OSError: the checkpoint could not be written.
    """
    _check(accelerator, progress)
    path = progress.output_dir / f"checkpoint-{progress.current_step}"
    with progress.checkpointing():
        accelerator.save_state(str(path))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            receipts.issue(progress.output_dir, path, step=progress.current_step)
            progress.record_checkpoint(path)
        accelerator.wait_for_everyone()
    return path


def load_state(accelerator: Accelerator, progress: ProgressTracker) -> int:
    """Load the newest intact checkpoint of `save_state`; return its finished steps, 0 without a checkpoint.

    Call it on all ranks, after `prepare` and before the loop. Restoring the data position is up to the caller.
    """
    _check(accelerator, progress)
    ranks = connect()
    found = receipts.newest_good(progress.output_dir) if ranks.rank == 0 else None
    shared = json.loads(ranks.share(json.dumps(None if found is None else [found.path, found.step]).encode()))
    ranks.close()
    path, step = shared or (None, 0)
    if path is not None:
        accelerator.load_state(str(progress.output_dir / path))
    progress.resume_at(step)
    return int(step)


def _check(accelerator: Any, *progress: Any) -> None:
    if not isinstance(accelerator, Accelerator):
        raise argument.wrong("accelerator", accelerator, "an Accelerator")
    for each in progress:
        if not isinstance(each, ProgressTracker):
            raise argument.wrong("progress", each, "a session, as training_progress_context() gives it")


def _bare(accelerator: Accelerator, each: Any) -> Any:
    match each:
        case AcceleratedOptimizer():
            return each.optimizer
        case AcceleratedScheduler():
            return each.scheduler
        case nn.Module():
            return accelerator.unwrap_model(each)
        case _:
            return each
