"""trainhooks: checkpoints, dataset position and metrics for PyTorch loops; a job resumes exactly where it stopped."""

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
