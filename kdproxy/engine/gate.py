"""The gate of one upstream, which all its lanes go through: breaker and retry budget, with a log line when they act."""

import logging
import random
from collections.abc import Callable

from kdproxy.core.pace_breaker import Breaker, RetryBudget, State
from kdproxy.core.ports import Clock

log = logging.getLogger("kdproxy.engine")


class Gate:
    """Event loop only."""

    def __init__(self, upstream: str, clock: Clock, jitter: Callable[[], float] = random.random) -> None:
        self.upstream = upstream
        self.breaker = Breaker()
        self.budget = RetryBudget()
        self._clock = clock
        self._jitter = jitter
        self._listeners: dict[Callable[[], None], None] = {}
        """Those that have somebody in line: with thousands of lanes each call would else tell them all."""
        self._last_reason: str | None = None
        """Why it failed last, since it answered last: told once."""

    @property
    def is_open(self) -> bool:
        """Whether the upstream is held for dead."""
        return self.breaker.state is State.OPEN

    def listen(self, changed: Callable[[], None]) -> None:
        """Have it told when calls may go again."""
        self._listeners[changed] = None

    def forget(self, changed: Callable[[], None]) -> None:
        """Nobody waits there."""
        self._listeners.pop(changed, None)

    def wait(self, now: float) -> float:
        """Return the seconds until a call may go; infinity: when another one has ended."""
        return self.breaker.wait(now)

    def passed(self) -> None:
        """The upstream answered."""
        self._last_reason = None
        if self.breaker.passed():
            self.budget.refill()
            log.warning("the upstream answers again", extra={"upstream": self.upstream})
        self._tell()

    def failed(self, reason: str, *, was_probe: bool) -> None:
        """The upstream failed a call."""
        if reason != self._last_reason:
            self._last_reason = reason
            log.warning("a call to the upstream failed", extra={"upstream": self.upstream, "reason": reason})
        now, jitter = self._clock.monotonic(), self._jitter()
        has_opened = self.breaker.failed(now, was_probe=was_probe, jitter=jitter)
        if not self.is_open and not self.budget.spend():
            has_opened = self.breaker.trip(now, jitter=jitter)
        if has_opened:
            log.error(
                "the upstream fails every call: requests are held, a probe looks now and then",
                extra={"upstream": self.upstream, "reason": reason},
            )
        self._tell()

    def end(self, *, was_probe: bool) -> None:
        """A call ended."""
        self.breaker.end(was_probe=was_probe)
        self._tell()

    def _tell(self) -> None:
        for changed in tuple(self._listeners):
            changed()
