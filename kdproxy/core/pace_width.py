"""How many calls may be in flight at once where no header tells. Pure.

The anchor is Inspect AI's rule: start 20, range 10-100, doubling until the first 429, x 0.8 per 429 episode, +5 % per
clean round. Ours remembers where the refusal came, and adds latency as the signal for servers that never refuse (vLLM
queues without end): when a round takes more than twice as long as the quickest one did, more calls only wait longer
(cf. Netflix concurrency-limits, Gradient2). 5xx answers do not shrink it.
"""

from dataclasses import dataclass

FIRST = 5.0
"""Calls at once until the provider has answered: a limit of 5 a minute is known after the first of them."""
START = 20.0
"""Where each answer begun has let one more out; from there on it widens by rounds."""
LEAST = 1.0
_SHRINK = 0.8
_OPENING = 1.5
_GROWTH = 1.05
_GENTLE = 1.0025
"""Close to where the last refusal came."""
_HOLD_RATIO = 2.0
_SHRINK_RATIO = 3.0
_SHORTEST_ROUND = 8


@dataclass(slots=True)
class Width:
    """The bound on calls in flight."""

    most: float
    bound: float = FIRST
    is_opening: bool = True
    """Until the first refusal, or the first sign of waiting."""
    _wall: float | None = None
    """The bound at the last refusal."""
    _baseline_seconds: float | None = None
    _round_seconds: float = 0.0
    _round_count: int = 0
    _round_peak: int = 0

    def __post_init__(self) -> None:
        self.bound = min(self.bound, self.most)

    def accepted(self) -> None:
        """An answer has begun."""
        if self.is_opening and self.bound < START:
            self.bound = min(self.most, self.bound + 1)

    def answered(self, seconds: float, in_flight: int) -> None:
        """A call ended well after so many seconds, with so many in flight, itself included."""
        self._round_seconds += seconds
        self._round_count += 1
        self._round_peak = max(self._round_peak, in_flight)
        if self._round_count >= max(_SHORTEST_ROUND, self.bound):
            self._end_round()

    def crowded(self, others: int) -> None:
        """A call was refused for being one too many at once, beside so many others of ours."""
        self.is_opening = False
        self.bound = self._wall = max(LEAST, min(self.bound, float(others)))
        self._begin_round()

    def refused(self) -> None:
        """A 429 episode began."""
        self.is_opening = False
        self._wall = self.bound
        self.bound = max(LEAST, self.bound * _SHRINK)
        self._begin_round()

    def _end_round(self) -> None:
        mean = self._round_seconds / self._round_count
        # The baseline gives way slowly: prompts may have become longer for good.
        baseline = mean if self._baseline_seconds is None else min(self._baseline_seconds * 1.02, mean)
        self._baseline_seconds = baseline
        ratio = mean / baseline if baseline > 0 else 1.0
        if ratio > _SHRINK_RATIO:
            self.is_opening = False
            self.bound = max(LEAST, self.bound * 0.9)
        elif ratio > _HOLD_RATIO:
            self.is_opening = False
        elif self._round_peak >= 0.9 * self.bound:
            # A bound that nobody reached says nothing of a higher one.
            self.bound = min(self.most, self.bound * self._growth())
        self._begin_round()

    def _growth(self) -> float:
        if self.is_opening:
            return _OPENING
        is_near = self._wall is not None and 0.92 * self._wall <= self.bound <= 1.05 * self._wall
        return _GENTLE if is_near else _GROWTH

    def _begin_round(self) -> None:
        self._round_seconds, self._round_count, self._round_peak = 0.0, 0, 0
