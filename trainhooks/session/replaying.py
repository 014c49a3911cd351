"""The resume certificate while it is made: rows are compared as they are taken in, the verdict is told once."""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from trainhooks.core.certificate import Certificate, Replay, Verdict

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
        is_well = certificate.verdict in (Verdict.EXACT, Verdict.NOTHING)
        if is_well and not log.hasHandlers():
            # Python shows warnings alone where nobody has set up logging. A progress bar may be on the current line.
            sys.stderr.write(f"\n{certificate}\n")
        log.log(logging.INFO if is_well else logging.WARNING, "%s", certificate)
        self._keep(certificate)
