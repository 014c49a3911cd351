"""What a training is made of, and its checkpoints: taken, published, found again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from trainhooks.core.difference import Difference
from trainhooks.core.policy import CheckpointPolicy
from trainhooks.core.ranks import Alone, Ranks
from trainhooks.core.restore import REQUIRES_GRAD, requires_live_flags
from trainhooks.errors import DirectoryUnusable
from trainhooks.storage.checkpoints import CHECKPOINTS, Checkpoint, CheckpointStore

log = logging.getLogger("trainhooks")


class Checkpointer:
    """The `state=` of a session and where it is kept. Loads torch.

    Args:
        session_id, attempt: who takes the checkpoints.
        restore: see `trainhooks.core.restore`.
        ranks: the processes that train together, of which one publishes.
        options: see `trainhooks.pytorch.checkpoint.saver.Saver`.
    """

    def __init__(
        self,
        output_dir: Path,
        state: Mapping[str, Any],
        policy: CheckpointPolicy,
        *,
        session_id: str,
        attempt: int,
        restore: str | Mapping[str, str] | None = None,
        ranks: Ranks | None = None,
        **options: Any,
    ) -> None:
        from trainhooks.pytorch import forgotten
        from trainhooks.pytorch.checkpoint import hyperparameters
        from trainhooks.pytorch.checkpoint.saver import Saver
        from trainhooks.pytorch.checkpoint.state import TrainingState
        from trainhooks.pytorch.checkpoint.unsaved_counters import UnsavedCounters

        self.policy = policy
        self.state = TrainingState(state)
        self.state.keeps_gradients = policy.gradients == "always"
        words = dict(restore) if isinstance(restore, Mapping) else restore
        if isinstance(words, dict):
            self.state.keeps_live_flags = requires_live_flags(words.pop(REQUIRES_GRAD, None))
        self.state.modes = hyperparameters.modes_of(words, self.state.objects)
        self._counters = UnsavedCounters(self.state.objects)
        for problem in forgotten.problems(self.state.objects):
            log.warning("not resumed: %s", problem)
        self._watch: Any = None
        self._ranks = ranks = ranks or Alone()
        folder = output_dir / CHECKPOINTS
        if folder.exists() and not folder.is_dir():
            raise DirectoryUnusable(f"{folder} is a file.", hint="Checkpoints go to a directory of this name: move it.")
        store = CheckpointStore(folder, session_id)
        self._store = store if ranks.rank == 0 else None
        self._saver = Saver(store, self.state, policy, attempt=attempt, ranks=ranks, **options)

    def restore(self, check: Callable[[Checkpoint], None]) -> dict[str, Any] | None:
        """Put the newest whole checkpoint into the live objects, random numbers last; returns its progress.

        `check` sees it before anything is changed, on rank 0, and may raise.
        """
        progress: dict[str, Any] | None = self._saver.restore(check)
        return progress

    def compare(self) -> Difference | None:
        """Return the first thing in which the live objects are not what the checkpoint holds that was resumed from.

        Raises:
            OSError: it is gone.
        """
        from trainhooks.pytorch.checkpoint import restored

        resumed = self._saver.resumed
        if resumed is None:
            return None
        return restored.compare(resumed.path, self.state, rank=self._ranks.rank, world=resumed.manifest.world)

    def begin_to_write(self) -> None:
        """The attempt begins: remove what a killed one left half written, move aside what was found damaged."""
        if self._watch is None:
            from trainhooks.pytorch import forgotten

            self._watch = forgotten.watch_optimizers(self.state.objects, self.state.saw_step)
        store, self._store = self._store, None
        if store is not None:
            store.clean()
            store.move_damaged_aside()

    def facts(self) -> dict[str, Any]:
        """Return the shape of the models and what they are computed with."""
        from trainhooks.pytorch import provenance
        from trainhooks.pytorch.checkpoint import hyperparameters

        objects = self.state.objects
        return {**provenance.models(objects), **provenance.environment(), **hyperparameters.facts_of(objects)}

    @property
    def restore_policies(self) -> dict[str, str]:
        """What becomes of differing hyperparameters whose `restore=` is said: they are warned of."""
        return {f"hyperparameters.{name}.*": "warn" for name in self.state.modes}

    def is_due(self, step: int, worked_seconds: float) -> bool:
        """At a safe point: report the results of earlier saves, and return whether to `begin` one now."""
        return self._saver.is_due(step, worked_seconds)

    def begin(self, step: int, progress: Mapping[str, Any], metrics: Mapping[str, float]) -> None:
        """Take a checkpoint, beside the training if the policy says so."""
        self._counters.look()
        self._saver.begin(step, progress, metrics)

    def save(
        self, step: int, progress: Mapping[str, Any], metrics: Mapping[str, float], tags: tuple[str, ...]
    ) -> Checkpoint | None:
        """Take and publish a checkpoint; returns once it is durable."""
        self._counters.look()
        return self._saver.save(step, progress, metrics, tags=tags)

    def wait(self) -> None:
        """Return once the checkpoint under way is published, or has failed."""
        self._saver.wait()

    def close(self) -> None:
        """Wait for what is being written."""
        if self._watch is not None:
            self._watch.remove()
        self._saver.close()
