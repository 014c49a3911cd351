"""The facade that a training loop sees."""

from trainhooks.session.context import TrainingProgressContext, training_progress_context

__all__ = ["TrainingProgressContext", "training_progress_context"]
