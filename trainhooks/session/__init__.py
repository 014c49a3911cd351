"""The facade that a training loop sees."""

from trainhooks.session.context import TrainingProgressContext
from trainhooks.session.measure import calculate_metrics_from_step, samples_per_second, tokens_per_second
from trainhooks.session.opening import setup_progress_tracking, training_progress_context
from trainhooks.session.retrying import retry_api_call
from trainhooks.session.tracker import ProgressTracker

__all__ = [
    "ProgressTracker",
    "TrainingProgressContext",
    "calculate_metrics_from_step",
    "retry_api_call",
    "samples_per_second",
    "setup_progress_tracking",
    "tokens_per_second",
    "training_progress_context",
]
