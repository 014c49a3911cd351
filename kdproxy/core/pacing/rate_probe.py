"""Finds the rate of a provider that sends no limit headers, from when it refuses and when it accepts again. Pure.

The first refusal of an episode is a wall. What got through before it, and how long it stayed closed, show the kind of
limit: a window of a minute stays closed for long, a token bucket opens at once. The rate is set from what was measured,
never by halving, and then raised: slowly near the wall, faster the longer nothing is refused.
"""

from dataclasses import dataclass, field

from kdproxy.core.pacing.sliding_window import SlidingWindow

_WINDOW = 60.0
_LONG_CLOSED = 5.0
"""A wall that stays closed for longer is that of a window, not of a token bucket."""
_MEASURED_SECONDS = 8.0
_ENOUGH = 10
"""Answers that make a measurement."""
_CAUTION = 0.96
_STEP_BACK = 0.95
_FIRST_STEP = 0.01
_LARGEST_STEP = 0.1
_STEP_GROWTH = 1.41
_CLEAN_SECONDS = 15.0
_GUESS = 0.2
"""After a first wall that opens at once only this is known: the rate before it was too high."""
_BURST_SECONDS = 1.0
LOWEST_RATE = 1 / 60


@dataclass(slots=True)
class RateProbe:
    """A pace in requests a second; None until the first wall."""

    rate: float | None = None
    _passed: SlidingWindow = field(default_factory=lambda: SlidingWindow(_WINDOW))
    """Sends that were not refused: answers may take minutes, refusals come within a round trip."""
    _began_at: float | None = None
    _wall_at: float | None = None
    _is_closed: bool = False
    _before_wall: float = 0.0
    """What passed in the minute before the wall."""
    _recent: float | None = None
    """What passed a second just before the wall; None where that was too little to measure."""
    _walls: list[float] = field(default_factory=list)
    """When the walls of the last minute were met."""
    _is_guess: bool = False
    _step: float = _FIRST_STEP
    _clean_from: float = 0.0
    _spaced_at: float = 0.0

    def wait(self, now: float) -> float:
        """Return the seconds until the next send."""
        if self.rate is None:
            return 0.0
        burst = max(1.0, self.rate * _BURST_SECONDS) - 1.0
        return max(0.0, self._spaced_at - now - burst / self.rate)

    def take(self, now: float) -> None:
        """Count a send."""
        if self._began_at is None:
            self._began_at = now
        self._passed.add(1.0, now)
        if self.rate is not None:
            self._spaced_at = max(self._spaced_at, now) + 1 / self.rate

    def upstream_failed(self, *, sent_at: float) -> None:
        """Take a send back on which the upstream failed: its slot goes to another."""
        if self.rate is not None:
            self._spaced_at -= 1 / self.rate
        self.not_passed(sent_at=sent_at)

    def started(self, now: float, *, sent_at: float) -> None:
        """A request got through: its answer has begun."""
        if self._is_closed:
            # A request that was sent before the wall does not show that it is open now.
            if self._wall_at is not None and sent_at >= self._wall_at:
                self._reopen(now)
        elif self.rate is not None:
            self._climb(self.rate, now)

    def _climb(self, rate: float, now: float) -> None:
        """Try a little more, after a while without a wall."""
        seconds = max(2.0, min(_CLEAN_SECONDS, 30 / rate)) if self._is_guess else _CLEAN_SECONDS
        if now - self._clean_from < seconds:
            return
        # Only a pace that is used shows whether more would pass.
        if self._passed.since(self._clean_from) >= 0.8 * rate * (now - self._clean_from):
            self.rate = rate * (1 + self._step)
            self._step = min(_LARGEST_STEP, self._step * _STEP_GROWTH)
        self._clean_from = now

    def not_passed(self, *, sent_at: float) -> None:
        """Take a send back that was refused, or was not sent."""
        self._passed.take_back(1.0)
        if self._is_closed and self._wall_at is not None and sent_at < self._wall_at:
            self._before_wall -= 1.0

    def episode_began(self, now: float) -> None:
        """Meet a wall: the first refusal of an episode."""
        self._walls = [at for at in self._walls if now - at < _WINDOW]
        began = now if self._began_at is None else self._began_at
        seconds = min(_MEASURED_SECONDS, max(now - began, 1.0))
        recent = self._passed.since(now - seconds)
        self._recent = None if recent < _ENOUGH else recent / seconds
        self._before_wall = self._passed.total(now)
        self._wall_at, self._is_closed = now, True
        self._walls.append(now)
        self._step = _FIRST_STEP

    def _reopen(self, now: float) -> None:
        assert self._wall_at is not None  # it was closed
        self._is_closed = self._is_guess = False
        closed = now - self._wall_at
        self.rate = self._found(closed, now)
        self._clean_from = now
        self._spaced_at = max(self._spaced_at, now)

    def _found(self, closed: float, now: float) -> float | None:
        """Return the rate that the walls so far suggest."""
        assert self._began_at is not None  # something passed
        if self._before_wall < 1:
            return self.rate  # nothing passed before this wall, so it measures nothing
        a_minute = max(LOWEST_RATE, self._before_wall / _WINDOW)
        if closed >= _LONG_CLOSED:
            return a_minute
        first = self._walls[0]
        if len(self._walls) == 1:
            if self.rate is not None:
                # A small step too far, after a minute without a wall: the rate of that minute is known to pass.
                return min(0.97 * self.rate, max(0.98 * a_minute, 0.8 * self.rate))
            return self._guess()
        if now - first >= _MEASURED_SECONDS:
            # At a wall a bucket is empty, so what passed since is its refill rate; our own pauses lower it, though.
            since = self._passed.since(first) / (now - first)
            carried = a_minute if self.rate is None else min(a_minute, 0.94 * self.rate)
            return max(LOWEST_RATE, _CAUTION * max(since, carried))
        if self.rate is None:
            return self._guess()
        return _STEP_BACK * min(self.rate, max(a_minute, 0.3 * self.rate))

    def _guess(self) -> float | None:
        if self._recent is None:
            return None
        self._is_guess, self._step = True, _LARGEST_STEP
        return _GUESS * self._recent
