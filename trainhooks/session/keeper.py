"""What a training is made of, and its checkpoints: taken, published, found again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainhooks.storage.checkpoints import Checkpoint, CheckpointStore


class Keeper:
    """The `state=` of a session and where it is kept. Loads torch.

    Args:
        every_steps: a checkpoint is due whenever so many steps are finished; None: only when asked for.
    """

    def __init__(self, output_dir: Path, state: Mapping[str, Any], *, every_steps: int | None) -> None:
        from trainhooks.pytorch import saver
        from trainhooks.pytorch.state import TrainingState

        self._saver = saver
        self._store = CheckpointStore(output_dir / "checkpoints")
        self._every_steps = every_steps
        self.state = TrainingState(state)

    def find(self) -> Checkpoint | None:
        """Return the newest checkpoint that is whole."""
        return self._store.newest_good()

    def load(self, checkpoint: Checkpoint) -> dict[str, Any]:
        """Put a checkpoint into the live objects, random numbers last; returns the progress that it holds."""
        return self._saver.load(checkpoint, self.state)

    def is_due(self, step: int) -> bool:
        """Whether a checkpoint is to be taken after `step` finished steps."""
        return self._every_steps is not None and step % self._every_steps == 0

    def save(
        self,
        *,
        step: int,
        session_id: str,
        attempt: int,
        progress: Mapping[str, Any],
        metrics: Mapping[str, float],
        tags: tuple[str, ...],
    ) -> Checkpoint:
        """Take and publish a checkpoint; returns once it is durable."""
        return self._saver.save(
            self._store,
            self.state,
            step=step,
            session_id=session_id,
            attempt=attempt,
            progress=progress,
            metrics=metrics,
            tags=tags,
        )
