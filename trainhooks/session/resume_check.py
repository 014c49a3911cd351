"""The resume check of a running attempt: compares it with its checkpoint, and leaves what the next one compares with.

Both concern the first steps after a save or a resume, so both happen where a step begins and where it ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trainhooks.core.certificate import BEGUN
from trainhooks.session.evidence import Evidence

if TYPE_CHECKING:
    from trainhooks.pytorch.checkpoint.state import TrainingState
    from trainhooks.session.feed import Feed
    from trainhooks.session.loop_state import LoopState
    from trainhooks.session.resumption import Resumption
    from trainhooks.session.row_sink import RowSink


class ResumeCheck:
    """Made for every session with `state`, on all ranks.

    Args:
        is_thorough: every row holds all digests, as in a rehearsal.
    """

    def __init__(self, state: TrainingState, loop: LoopState, sink: RowSink, feed: Feed, *, is_thorough: bool) -> None:
        self.state = state
        self.resumption: Resumption | None = None
        """What is to be compared with the checkpoint, until the first steps have been."""
        self._loop = loop
        self._sink = sink
        self._feed = feed
        self._evidence = Evidence(feed, is_thorough=is_thorough)

    def compare_restored(self) -> None:
        """Compare the live objects with the checkpoint, before the first batch is read."""
        if self.resumption is not None:
            self.resumption.compare_restored()

    def saved(self) -> None:
        """A checkpoint has been taken: a resume from it does the next step first."""
        self._evidence.saved()

    def begin_step(self, batch: Any) -> None:
        """Digest the batch for the step's row, before the loop gets it."""
        self.state.begin_step()
        self.add_arrived()
        digests = self._evidence.begins(self._loop.finished, batch)
        self._loop.attach(digests)
        if self._evidence.is_first:
            self._begin_first(digests)

    def end_step(self) -> bool:
        """Digest what the step led to; returns whether it is a first one, for `end_first` once its row is written."""
        is_first = self._evidence.is_first
        self._loop.attach(self._evidence.ends(self._loop.finished, self.state))
        return is_first

    def _begin_first(self, digests: dict[str, Any]) -> None:
        """The first step after a save or a resume begins: compare it, and record on disk that it began."""
        if self.resumption is not None:
            found = self.resumption.compare_first(self._feed.origin)
            if self._sink.files is not None:
                self._sink.files.check(found)
                self._sink.files.check_begun(self._loop.finished, digests, is_all=not self.resumption.expects_streams)
        if self._loop.finished > 0:
            self._sink.announce(BEGUN, step=self._loop.finished, **digests)
            self._sink.urge()

    def end_first(self) -> None:
        """The first step after a save or a resume is done: bring its results to the medium at once."""
        resumption, self.resumption = self.resumption, None
        if resumption is not None and resumption.expects_streams:
            found = resumption.compare_streams()
            if self._sink.files is not None:
                self._sink.files.check(found, is_last=True)
        self._sink.urge()

    def add_arrived(self, *, waits: bool = False) -> None:
        """Add digests that have arrived from a device to the rows of their steps."""
        arrived = self._evidence.arrived(waits=waits)
        if arrived is not None:
            self._sink.add(*arrived)
            self._sink.urge()
