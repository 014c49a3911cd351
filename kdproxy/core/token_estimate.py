"""What a provider counts for one unit of our estimate: it may count max_tokens, or words, or neighbours. Pure."""

from dataclasses import dataclass

LEAST = 0.05
MOST = 4.0
_LARGEST_WEIGHT = 0.3
_FULL_SHARE = 0.95
_TELLING_SHARE = 0.1
_WINDOW_WEIGHT = 0.1


@dataclass(slots=True)
class Scale:
    """A factor, learned."""

    value: float = 1.0
    _point: tuple[float, float, float] | None = None
    """What had been sent by estimate by the last reading, what it said remained, and when it was asked for."""

    def look(self, sent: float, remaining: float, at: float, *, bound: float, refill_rate: float) -> None:
        """Compare what a quota lost between two readings with what was sent meanwhile, by estimate.

        Args:
            refill_rate: what came back a second, where that is known.
        """
        before, self._point = self._point, (sent, remaining, at)
        if before is None:
            return
        estimated = (sent - before[0]) * self.value
        lost = before[1] - remaining + refill_rate * (at - before[2])
        # A bucket that is full spills what comes back: it lost no more than this, and perhaps less.
        highest = 1.0 if remaining >= _FULL_SHARE * bound else MOST
        if estimated > 0 and lost > 0:
            weight = min(_LARGEST_WEIGHT, estimated * 20 / bound)
            self._set(self.value * (1 + weight * (min(highest, lost / estimated) - 1)))

    def forget(self) -> None:
        """A new window: what comes next is not to be compared with what was."""
        self._point = None

    def weigh(self, window: float, held: float, *, bound: float) -> None:
        """Compare what a sliding window holds with what of ours is in it, by estimate.

        A neighbour's part looks like ours, so ours looks dear: that leaves the neighbour room.
        """
        if window > 0 and held >= _TELLING_SHARE * bound:
            self._set(self.value + _WINDOW_WEIGHT * (min(MOST, held / window) - self.value))

    def _set(self, value: float) -> None:
        self.value = min(MOST, max(LEAST, value))
