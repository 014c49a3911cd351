"""Whether the training is to stop now: signals of this process, agreed with the other ranks."""

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

    def poll(self) -> int:
        """Return the signal for which all ranks stop now, 0 for none. Collective: every rank asks equally often.

        With several ranks a signal shows one call after it came, on all of them in the same call.
        """
        if not self._agreed:
            self._agreed = self._ranks.exchange(self._preemption.number)
        return self._agreed

    def leave(self) -> NoReturn:
        """Raise what ends the process: see `Preemption.leave`."""
        self._preemption.leave(self._agreed)

    def close(self, *, deliver: bool) -> None:
        """Give the signals back: see `Preemption.close`."""
        self._preemption.close(deliver=deliver)
        self._ranks.close()
