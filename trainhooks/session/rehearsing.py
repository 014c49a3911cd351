"""The part of a rehearsal that runs inside the training: save, kill itself once, or end, each between two steps."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from trainhooks.core.ranks import Ranks
from trainhooks.core.rehearsal import Plan
from trainhooks.storage.rehearsal import KILLED


class Rehearsing:
    """Follows a plan at each safe point. With several ranks all of them do, in the same step."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._marker = Path(plan.directory) / KILLED

    def is_save_due(self, step: int) -> bool:
        """Whether a checkpoint is begun now."""
        return step == self._plan.save_at

    def follow(self, step: int, ranks: Ranks, *, settle: Callable[[], None]) -> None:
        """End the process, if it is to end when `step` steps are finished.

        Args:
            settle: returns once the checkpoint under way is published, and every record on the disk.

        Raises:
            SystemExit: the rehearsed steps are done; what the script has behind its loop is not run.
        """
        if self._plan.kill_at is not None and step == self._plan.kill_at:
            is_killed = ranks.share(b"yes" if self._marker.exists() else b"no") == b"yes"
            if not is_killed:
                settle()
                if ranks.rank == 0:
                    self._marker.touch()
                ranks.barrier()
                os.kill(os.getpid(), signal.SIGKILL)
        if step >= self._plan.steps:
            settle()
            self._leave()

    def _leave(self) -> NoReturn:
        raise SystemExit(0)
