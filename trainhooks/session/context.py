"""One training job as its loop sees it: steps with their batches, metrics, checkpoints, and where it goes on."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainhooks.core import seed as seeds
from trainhooks.storage import atomic
from trainhooks.storage.checkpoints import Checkpoint, CheckpointStore
from trainhooks.storage.metrics import MetricsWriter

if TYPE_CHECKING:
    from trainhooks.pytorch.loader import PositionedLoader


class TrainingProgressContext:
    """A training job that goes on where it stopped. Made by `training_progress_context`."""

    def __init__(
        self,
        config: Mapping[str, Any],
        output_dir: Path,
        total_steps: int,
        *,
        state: Mapping[str, Any] | None = None,
        checkpoint_every_steps: int | None = None,
    ) -> None:
        self.config = dict(config)
        self.directory = output_dir / "progress"
        self.directory.mkdir(parents=True, exist_ok=True)
        self.total_steps = total_steps
        self.current_step = 0
        """Steps finished so far, over all attempts."""
        self._every = checkpoint_every_steps
        self._store = CheckpointStore(output_dir / "checkpoints")
        self._loader: PositionedLoader | None = None
        self._loader_state: dict[str, Any] | None = None
        self._state = None
        self._start_session()
        self._metrics = MetricsWriter(self.directory / "metrics.jsonl")
        if state is not None:
            from trainhooks.pytorch import saver
            from trainhooks.pytorch.state import TrainingState

            self._saver = saver
            self._state = TrainingState(state)
            self._resume()

    def _start_session(self) -> None:
        path = self.directory / "session.json"
        try:
            members = json.loads(path.read_bytes())
        except FileNotFoundError:
            members = {"v": 1, "session_id": os.urandom(8).hex(), "created_at": time.time(), "attempts": []}
        members["attempts"].append({"started_at": time.time()})
        self.session_id: str = members["session_id"]
        self.attempt = len(members["attempts"])
        self.seed = seeds.derive("session", self.config.get("seed", 0))
        atomic.write(path, json.dumps(members, indent=1).encode())

    def _resume(self) -> None:
        assert self._state is not None
        found = self._store.newest_good()
        if found is not None:
            progress = self._saver.load(found, self._state)
            self.current_step = progress["step"]
            self._loader_state = progress["loader"]

    def loader(self, dataset: Any, *, batch_size: int, **options: Any) -> PositionedLoader:
        """Make a loader that goes on at the session's position. Options: see `PositionedLoader`."""
        from trainhooks.pytorch.loader import PositionedLoader

        self._loader = PositionedLoader(dataset, batch_size=batch_size, seed=self.seed, **options)
        if self._loader_state is not None:
            self._loader.load_state_dict(self._loader_state)
        return self._loader

    def steps(self) -> Iterator[tuple[int, Any]]:
        """Yield (step, batch), epoch after epoch, until `total_steps` are done. Checkpoints are taken between steps."""
        assert self._loader is not None
        while self.current_step < self.total_steps:
            for batch in self._loader:
                if self._state is not None:
                    self._state.begin_step()
                yield self.current_step, batch
                self.current_step += 1
                if self._every is not None and self.current_step % self._every == 0:
                    self.save_checkpoint()
                if self.current_step >= self.total_steps:
                    break

    def update_metrics(self, *, step: int, **metrics: Any) -> None:
        """Record what a step measured."""
        self._metrics.add({"v": 1, "attempt": self.attempt, "step": step, "at": time.time(), **metrics})

    def save_checkpoint(self, *, tags: tuple[str, ...] = ()) -> Checkpoint:
        """Save everything now and return once it is durable."""
        assert self._state is not None
        return self._saver.save(
            self._store,
            self._state,
            step=self.current_step,
            session_id=self.session_id,
            attempt=self.attempt,
            progress={"step": self.current_step, "loader": None if self._loader is None else self._loader.state_dict()},
            metrics={},
            tags=tags,
        )

    def close(self) -> None:
        """Write what is left and let go of the directory."""
        self._metrics.close()


@contextmanager
def training_progress_context(
    config: Mapping[str, Any], output_dir: str | os.PathLike[str], total_steps: int, **options: Any
) -> Iterator[TrainingProgressContext]:
    """Open a training job, or go on with the one that `output_dir` holds."""
    context = TrainingProgressContext(config, Path(output_dir), total_steps, **options)
    try:
        yield context
    finally:
        context.close()
