"""Learns the ratio of a provider's token count to our estimate: it may count max_tokens or words differently. Pure."""

from dataclasses import dataclass

LEAST = 0.05
MOST = 4.0
_LARGEST_WEIGHT = 0.3
_FULL_SHARE = 0.95
_MEANINGFUL_SHARE = 0.1
_WINDOW_WEIGHT = 0.1


@dataclass(slots=True)
class Scale:
    """A learned factor."""

    value: float = 1.0
    _point: tuple[float, float, float] | None = None
    """At the last reading: the estimated total sent, what the provider said remained, and when the request was sent."""

    def compare_readings(self, sent: float, remaining: float, at: float, *, bound: float, refill_rate: float) -> None:
        """Compare the loss of a quota between two readings with the estimate of what was sent meanwhile.

        Args:
            refill_rate: the quota's refill per second, if known.
        """
        before, self._point = self._point, (sent, remaining, at)
        if before is None:
            return
        estimated = (sent - before[0]) * self.value
        lost = before[1] - remaining + refill_rate * (at - before[2])
        # A full bucket discards its refill: it lost at most this much.
        highest = 1.0 if remaining >= _FULL_SHARE * bound else MOST
        if estimated > 0 and lost > 0:
            weight = min(_LARGEST_WEIGHT, estimated * 20 / bound)
            self._set(self.value * (1 + weight * (min(highest, lost / estimated) - 1)))

    def forget(self) -> None:
        """Start a new window: its readings are not compared with earlier ones."""
        self._point = None

    def compare_window(self, window: float, held: float, *, bound: float) -> None:
        """Compare a sliding window's count with the estimate of our requests in it.

        Requests of other clients count as ours, so ours seem more expensive: that leaves room for the others.
        """
        if window > 0 and held >= _MEANINGFUL_SHARE * bound:
            self._set(self.value + _WINDOW_WEIGHT * (min(MOST, held / window) - self.value))

    def _set(self, value: float) -> None:
        self.value = min(MOST, max(LEAST, value))
