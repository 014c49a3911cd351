"""The resume certificate while it is made: rows are compared as they are taken in, the verdict is logged once."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trainhooks.core.certificate import SAMPLES, Certificate, Verdict
from trainhooks.core.difference import Difference
from trainhooks.core.replay import Replay
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
        self._is_logged = False
        self._is_waiting = False
        """Whether other streams are still to be compared."""

    def check(self, found: Mapping[str, Difference | None], *, is_last: bool = False) -> None:
        """Take in what was compared beside the rows; `is_last`: nothing more of that kind comes.

        With the recorder's lock held.
        """
        for fact, difference in found.items():
            self._replay.check(fact, difference)
        if is_last:
            self._is_waiting = False
            if self._replay.is_over and not self._is_logged:
                self.finish()

    def check_samples(self, inexact: str | None) -> None:
        """Take in whether the teacher's samples are those of the checkpoint; `inexact`: why not."""
        if inexact is None:
            self._replay.check(SAMPLES, None)
        else:
            self._replay.inexact_samples = inexact

    def begins(self, step: int, digests: Mapping[str, Any], *, is_all: bool) -> None:
        """Compare the batch of a step that begins. With the recorder's lock held.

        The verdict is logged before the step runs where training on would be in vain, or nothing more can be compared:
        no earlier attempt recorded this step, and `is_all`.
        """
        self._replay.begins(step, digests)
        self._is_waiting = not is_all
        if self._replay.has_diverged or (is_all and not self._replay.expects_rows):
            self.finish()

    def observe(self, step: int, row: Mapping[str, Any]) -> None:
        """Compare a row. Called from the recorder's thread, or with its lock held."""
        if not self._is_logged:
            self._replay.observe(step, row)
            if self._replay.is_over and not self._is_waiting:
                self.finish()

    def finish(self) -> None:
        """Log the verdict on what has been compared, once."""
        if self._is_logged:
            return
        self._is_logged = True
        certificate = self._replay.certificate()
        is_good = certificate.samples is None
        if is_good and certificate.verdict in (Verdict.EXACT, Verdict.AGREES, Verdict.NOTHING):
            say(certificate)
        else:
            log.warning("%s", certificate)
        self._keep(certificate)
