"""trainhooks: checkpoints, dataset position and metrics for PyTorch loops; a job resumes exactly where it stopped.

Open a training:
    training_progress_context   for the length of a `with` block; gives a TrainingProgressContext
    setup_progress_tracking     the same without a `with` block
    CheckpointPolicy, Best      when checkpoints are taken, and which ones stay; Mode: whether lower is better
    Preempted                   ends a training that a signal stopped, with exit code 75

In the loop, methods of TrainingProgressContext:
    loader, steps               batches from the position where the run stopped; (step, batch) of each step
    update_metrics              record what a step measured (each value a MetricValue)
    save_checkpoint, stop, finish, should_stop
    evaluating, paused          blocks whose time does not count as training

Records alone:
    ProgressTracker             for loops and trainers that save their own checkpoints
    calculate_metrics_from_step, samples_per_second, tokens_per_second
    retry_api_call              call a teacher's API with retries

Read a run:
    peek, Peek                  where a run stands, without opening it
    read_metrics, read_lineage  its rows; which samples and stored answers each step used
    newest_good_checkpoint      of a trainer that saves its own checkpoints
    Summary                     step, loss, throughput, ETA: what `progress.summary()` returns

Further modules: trainhooks.recovery (runs of any tool), trainhooks.notebook, trainhooks.integrations (Hugging Face,
Lightning, Accelerate), trainhooks.lineage. On the command line: `trainhooks --help`. Guide: docs/training.md.
"""

from trainhooks.core.direction import Mode
from trainhooks.core.metric_value import MetricValue
from trainhooks.core.policy import CheckpointPolicy
from trainhooks.core.progress import Summary
from trainhooks.core.retention import Best
from trainhooks.host.preemption import Preempted
from trainhooks.session import (
    ProgressTracker,
    TrainingProgressContext,
    calculate_metrics_from_step,
    retry_api_call,
    samples_per_second,
    setup_progress_tracking,
    tokens_per_second,
    training_progress_context,
)
from trainhooks.storage.lineage import read_lineage
from trainhooks.storage.metrics import read_metrics
from trainhooks.storage.peek import Peek, peek
from trainhooks.storage.receipts import newest_good_checkpoint

__all__ = [
    "Best",
    "CheckpointPolicy",
    "MetricValue",
    "Mode",
    "Peek",
    "Preempted",
    "ProgressTracker",
    "Summary",
    "TrainingProgressContext",
    "calculate_metrics_from_step",
    "newest_good_checkpoint",
    "peek",
    "read_lineage",
    "read_metrics",
    "retry_api_call",
    "samples_per_second",
    "setup_progress_tracking",
    "tokens_per_second",
    "training_progress_context",
]
