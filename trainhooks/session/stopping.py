"""Whether the training is to stop now: signals of this process, agreed with the other ranks."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from trainhooks.core.ranks import Ranks
from trainhooks.host.preemption import Preemption


class Stopping:
    """Signals from its making to `close`.

    Args:
        grace_seconds: see `Preemption`.
    """

    def __init__(self, ranks: Ranks, *, grace_seconds: float | None) -> None:
        self._ranks = ranks
        self._preemption = Preemption(grace_seconds=grace_seconds)
        self._preemption.install()
        self._agreed = 0
        self._loops = 0

    def poll(self) -> int:
        """Return the signal for which all ranks stop now, 0 for none. Collective: every rank asks equally often.

        With several ranks a signal shows one call after it came, on all of them in the same call.
        """
        if not self._agreed:
            self._agreed = self._ranks.exchange(self._preemption.number)
        return self._agreed

    @contextmanager
    def serving(self) -> Iterator[None]:
        """In here steps end and a signal waits for that. Afterwards it acts at once, since nothing would serve it."""
        self._preemption.install()
        self._loops += 1
        mine = self._loops
        try:
            yield
        finally:
            if self._loops == mine:  # a loop that an error left is freed late: another may be running by then
                self._preemption.release()

    def give_up(self) -> None:
        """No step will ever end: signals act at once, the one that has come too."""
        self._preemption.close(deliver=True)

    def leave(self) -> NoReturn:
        """Raise what ends the process: see `Preemption.leave`."""
        self._preemption.leave(self._agreed)

    def close(self, *, deliver: bool) -> None:
        """Give the signals back: see `Preemption.close`."""
        self._preemption.close(deliver=deliver)
        self._ranks.close()
