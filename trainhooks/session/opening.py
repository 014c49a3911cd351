"""Ways to open a training job."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from trainhooks.core.policy import CheckpointPolicy
from trainhooks.host.preemption import Preempted
from trainhooks.session.context import TrainingProgressContext


@contextmanager
def training_progress_context(
    config: Any,
    output_dir: str | os.PathLike[str],
    total_steps: int,
    *,
    state: Mapping[str, Any] | None = None,
    checkpoints: CheckpointPolicy | None = None,
    checkpoint_every_steps: int | None = None,
    grace_seconds: float | None = None,
    drift: Mapping[str, str] | None = None,
    restore: str | Mapping[str, str] | None = None,
    tokenizer: Any = None,
    database: str | os.PathLike[str] | bool = True,
) -> Iterator[TrainingProgressContext]:
    """Open a training job, or resume the one that `output_dir` holds, for the length of a `with` block.

    Options and errors: see `TrainingProgressContext`.
    """
    context = setup_progress_tracking(
        config,
        output_dir,
        total_steps,
        state=state,
        checkpoints=checkpoints,
        checkpoint_every_steps=checkpoint_every_steps,
        grace_seconds=grace_seconds,
        drift=drift,
        restore=restore,
        tokenizer=tokenizer,
        database=database,
    )
    try:
        yield context
    except Preempted as preempted:
        context._close(f"preempted: {preempted.signal.name}")
        raise
    except BaseException as error:
        context._close(f"failed: {type(error).__name__}")
        raise
    context.close()


def setup_progress_tracking(
    config: Any,
    output_dir: str | os.PathLike[str],
    total_steps: int,
    *,
    state: Mapping[str, Any] | None = None,
    checkpoints: CheckpointPolicy | None = None,
    checkpoint_every_steps: int | None = None,
    grace_seconds: float | None = None,
    drift: Mapping[str, str] | None = None,
    restore: str | Mapping[str, str] | None = None,
    tokenizer: Any = None,
    database: str | os.PathLike[str] | bool = True,
) -> TrainingProgressContext:
    """Open a training job without a `with` block: `close()` ends it, or the end of the process does.

    Options and errors: see `TrainingProgressContext`.
    """
    return TrainingProgressContext(
        config,
        output_dir,
        total_steps,
        state=state,
        checkpoints=checkpoints,
        checkpoint_every_steps=checkpoint_every_steps,
        grace_seconds=grace_seconds,
        drift=drift,
        restore=restore,
        tokenizer=tokenizer,
        database=database,
    )
