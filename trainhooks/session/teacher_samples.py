"""The teacher's samples of a session: saved with each checkpoint, put back at a resume.

Only where the process belongs to a run of a kdproxy (`KDPROXY_RUN_URL`). Rank 0 asks; all ranks wait for it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from trainhooks.core import cursor as cursors
from trainhooks.core.cursor import Covered, Cursor
from trainhooks.errors import RunUnavailable, SamplesNotRestored
from trainhooks.host import run_client
from trainhooks.host.run_client import RUN_URL, RunClient

if TYPE_CHECKING:
    from trainhooks.core.ranks import Ranks
    from trainhooks.session.attempt_files import AttemptFiles
    from trainhooks.session.drift_check import DriftCheck
    from trainhooks.session.feed import Feed

log = logging.getLogger("trainhooks")

SAMPLES = "samples"
"""Member of a checkpoint's progress, fact of the drift check, and member of an attempt in session.json."""
_REMEDY = "let one process ask, or name the samples with Kdproxy-Sample: N (docs/samples.md)"


class TeacherSamples:
    """Made for every session with `state`, on all ranks."""

    def __init__(self, feed: Feed, ranks: Ranks, files: AttemptFiles | None, drift_check: DriftCheck | None) -> None:
        """Raises ConfigInvalid: the environment names no run."""
        self._client = run_client.of_environment()
        self._feed = feed
        self._ranks = ranks
        self._files = files
        self._drift_check = drift_check
        self._saved: Covered | None = None
        self._is_resumed = self._has_begun = False
        self._failure: str | None = None
        """Why they were not put back, where that is allowed."""
        self._warned: set[str] = set()

    def resume(self, progress: Mapping[str, Any]) -> None:
        """Take over what the checkpoint says of samples. Nothing is asked yet."""
        self._is_resumed = True
        members = progress.get(SAMPLES)
        if isinstance(members, Mapping):
            try:
                self._saved = cursors.covered_of(members)
            except (TypeError, ValueError) as error:
                self._saved = Covered(None, f"the checkpoint's cursor cannot be read ({error})")

    # -- at the start -----------------------------------------------------------------------------------------

    def open(self) -> None:
        """The checkpoint is known: what the script asks before its loop gets the samples of the training's first start.

        Collective, as `begin` is.

        Raises:
            SamplesNotRestored: they could not be put back, and `drift={"samples": "allow"}` does not allow it.
        """
        if self._client is not None:
            self._attempt(self._restart, "those that the training began with")

    def begin(self) -> None:
        """The first batch is about to be made: put the samples back to the checkpoint. More calls do nothing.

        Raises:
            SamplesNotRestored: as above.
        """
        if self._has_begun or not self._is_resumed:
            return
        self._has_begun = True
        if self._client is None:
            self._say_without_run()
        elif self._failure is None:
            self._attempt(self._restore, "those of the checkpoint")
        else:
            self._certify(self._failure)

    def _attempt(self, do: Callable[[RunClient], None], where: str) -> None:
        assert self._client is not None
        failure = ""
        if self._ranks.rank == 0:
            try:
                do(self._client)
            except RunUnavailable as error:
                failure = error.message
        failure = json.loads(self._ranks.share(json.dumps(failure).encode()))
        if failure:
            self._refuse(failure, where)

    def _restart(self, client: RunClient) -> None:
        if self._saved is not None and self._saved.cursor is not None:
            client.restore(self._saved.cursor)  # one that is not known is refused before the script asks anything
        attempts = [] if self._files is None else self._files.session.attempts
        first = next((each[SAMPLES] for each in attempts if isinstance(each.get(SAMPLES), Mapping)), None)
        if first is None:
            begin = client.cursor()
        else:
            begin = cursors.read(first)
            client.restore(begin)
        if attempts:
            attempts[-1][SAMPLES] = begin.members()

    def _restore(self, client: RunClient) -> None:
        saved = self._saved or Covered(None, "the checkpoint holds no cursor")
        inexact = saved.inexact
        if saved.cursor is not None:
            in_flight = client.restore(saved.cursor)
            if in_flight:
                inexact = inexact or f"{in_flight} requests of another process held samples"
        self._certify(inexact)

    def _refuse(self, failure: str, where: str) -> None:
        if self._drift_check is not None and not self._drift_check.blocks(SAMPLES):
            log.warning("the teacher's samples are not %s: %s", where, failure)
            self._failure = f"they were not restored: {failure}"
            if self._has_begun:
                self._certify(self._failure)
            return
        raise SamplesNotRestored(
            f"The teacher's samples could not be put back to {where}: {failure} Nothing was trained or bought.",
            hint="Start the kdproxy that the run was trained with, on its data directory. To continue with other "
            "samples, give drift={'samples': 'allow'}.",
        )

    def _say_without_run(self) -> None:
        if self._saved is not None and self._saved.cursor is not None and self._saved.cursor.counted:
            log.warning(
                "the checkpoint holds a cursor of a kdproxy run and %s is not set: the teacher's samples are not put"
                " back. Start the training with `kdproxy run`.",
                RUN_URL,
            )
            self._certify(f"{RUN_URL} is not set")

    def _certify(self, inexact: str | None) -> None:
        if self._files is not None and self._is_resumed:
            self._files.check_samples(inexact)

    # -- with a checkpoint ------------------------------------------------------------------------------------

    def members(self) -> dict[str, Any]:
        """Return what a checkpoint that is taken now says of samples."""
        if self._client is None or self._ranks.rank > 0:
            return {}
        try:
            covered = self._covered(self._client.cursor())
        except RunUnavailable as error:
            covered = Covered(None, error.message)
        if covered.inexact is not None and covered.inexact not in self._warned:
            self._warned.add(covered.inexact)
            log.warning("a resume from this checkpoint may get other samples: %s; %s", covered.inexact, _REMEDY)
        return {SAMPLES: covered.members()}

    def _covered(self, now: Cursor) -> Covered:
        driver, others, is_again = self._feed.productions()
        return cursors.covered(now, driver, others, is_again=is_again, world=self._ranks.world)
