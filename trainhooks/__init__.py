"""trainhooks: checkpoints, dataset position and metrics for PyTorch loops; a job goes on exactly where it stopped."""

from trainhooks.session import TrainingProgressContext, training_progress_context

__all__ = ["TrainingProgressContext", "training_progress_context"]
