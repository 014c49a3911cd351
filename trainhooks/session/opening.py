"""Ways to open a training job."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainhooks.host.preemption import Preempted
from trainhooks.session.context import TrainingProgressContext


@contextmanager
def training_progress_context(
    config: Any, output_dir: str | os.PathLike[str], total_steps: int, **options: Any
) -> Iterator[TrainingProgressContext]:
    """Open a training job, or go on with the one that `output_dir` holds, for the length of a `with` block.

    Options and errors: see `TrainingProgressContext`.
    """
    context = TrainingProgressContext(config, output_dir, total_steps, **options)
    try:
        yield context
    except Preempted as told:
        context._close(f"preempted: {told.signal.name}")
        raise
    except BaseException as error:
        context._close(f"failed: {type(error).__name__}")
        raise
    context.close()


def setup_progress_tracking(
    config: Any, output_dir: str | os.PathLike[str], total_steps: int, **options: Any
) -> TrainingProgressContext:
    """Open a training job without a `with` block: `close()` ends it, or the end of the process does.

    Options and errors: see `TrainingProgressContext`.
    """
    return TrainingProgressContext(config, output_dir, total_steps, **options)
