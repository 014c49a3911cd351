"""The resume certificate while it is made: rows are compared as they are taken in, the verdict is told once."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trainhooks.core.certificate import Certificate, Replay, Verdict
from trainhooks.session.notice import say

log = logging.getLogger("trainhooks")


class Replaying:
    """Watches the rows of a resumed attempt.

    Args:
        recorded, from_step: see `Replay`.
        keep: is given the certificate, once.
    """

    def __init__(
        self, recorded: Iterable[Mapping[str, Any]], from_step: int, keep: Callable[[Certificate], None]
    ) -> None:
        self._replay = Replay(recorded, from_step)
        self._keep = keep
        self._is_told = False

    def observe(self, step: int, row: Mapping[str, Any]) -> None:
        """Compare a row. Called from the recorder's thread, or with its lock held."""
        if not self._is_told:
            self._replay.observe(step, row)
            if self._replay.is_over:
                self.finish()

    def finish(self) -> None:
        """Tell the verdict on what has been compared, if it has not been told."""
        if self._is_told:
            return
        self._is_told = True
        certificate = self._replay.certificate()
        if certificate.verdict in (Verdict.EXACT, Verdict.NOTHING):
            say(certificate)
        else:
            log.warning("%s", certificate)
        self._keep(certificate)
