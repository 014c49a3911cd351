"""Whether one upstream works, for all its lanes: circuit breaker, retry budget, a log line when they act."""

import logging
import math
import random
from collections.abc import Callable, Hashable

from kdproxy.core.models import Upstream
from kdproxy.core.pacing.breaker import CircuitBreaker, RetryBudget, State
from kdproxy.core.ports import Clock
from kdproxy.engine.probe import ProbeResult

log = logging.getLogger("kdproxy.engine")

Probe = Callable[[Upstream, Callable[[ProbeResult], None]], None]
"""Starts a probe of the upstream, and calls back with its result."""


class UpstreamHealth:
    """Event loop only."""

    def __init__(
        self,
        upstream: Upstream,
        clock: Clock,
        jitter: Callable[[], float] = random.random,
        *,
        fails_fast: bool = False,
    ) -> None:
        self.upstream = upstream
        self.fails_fast = fails_fast
        """Whether requests fail at once while the breaker is open; else they are held."""
        self.breaker = CircuitBreaker()
        self.budget = RetryBudget()
        self.probe: Probe | None = None
        """None: no probe is possible, so questions are let through as time passes."""
        self.succeeded_at = -math.inf
        """When a question was last answered well: monotonic seconds."""
        self._clock = clock
        self._jitter = jitter
        self._listeners: dict[Callable[[], None], None] = {}
        """Queues with waiters only: with thousands of lanes each call would else notify them all."""
        self._is_probing = False
        self.last_reason: str | None = None
        """Why it failed last, since it last answered: logged once, and reported by `outage`."""
        self._failing_since = -math.inf
        self._failed_at = -math.inf

    @property
    def is_open(self) -> bool:
        """Whether the circuit breaker is open."""
        return self.breaker.state is State.OPEN

    def listen(self, changed: Callable[[], None]) -> None:
        """Call `changed` when calls may go again."""
        self._listeners[changed] = None

    def forget(self, changed: Callable[[], None]) -> None:
        """Stop calling `changed`: it has no waiters."""
        self._listeners.pop(changed, None)

    def wait(self, now: float, question: Hashable) -> float:
        """Return the seconds until a question may go; infinity: when a call or a probe has ended.

        Where the breaker is open and a probe is due, a question that has not failed goes as the probe; else this call
        starts a GET.
        """
        seconds = self.breaker.wait(now)
        if not self.is_open or seconds > 0:
            return seconds
        if not self.breaker.has_failed(question) and not self.breaker.has_trial and not self._is_probing:
            return 0.0
        if self.probe is None:
            self.breaker.probe_succeeded()
            return self.breaker.wait(now)
        self._start_probe(self.probe)
        return math.inf if self.is_open else self.breaker.wait(now)

    def outage(self, within_seconds: float) -> dict[str, object] | None:
        """Return what to say of an upstream that has failed since it answered last, and lately."""
        now = self._clock.monotonic()
        if self.last_reason is None or now - self._failed_at > within_seconds:
            return None
        for_seconds = round(now - self._failing_since)
        return {"upstream": self.upstream.name, "reason": self.last_reason, "for_seconds": for_seconds}

    def started(self, *, is_retry: bool) -> None:
        """Take note of an answer that has begun: all is well."""
        self.succeeded_at = self._clock.monotonic()
        self.answered()
        self.budget.started(is_retry=is_retry)

    def answered(self) -> None:
        """Take note that the upstream answered, if only to refuse: `rate_limited`, `rejected`, a stopped lane."""
        self.last_reason = None
        if self.breaker.answered():
            self.budget.refill()
            log.warning("the upstream answers again", extra={"upstream": self.upstream.name})
        self._notify()

    def upstream_failed(self, reason: str, question: Hashable) -> None:
        """Take note of a call that the upstream failed."""
        self._failed_at = self._clock.monotonic()
        if self.last_reason is None:
            self._failing_since = self._failed_at
        if reason != self.last_reason:
            self.last_reason = reason
            log.warning("a call to the upstream failed", extra={"upstream": self.upstream.name, "reason": reason})
        now, jitter = self._clock.monotonic(), self._jitter()
        is_first = not self.breaker.has_failed(question)
        has_opened = self.breaker.upstream_failed(now, question=question, jitter=jitter)
        if is_first and not self.is_open and not self.budget.spend():
            has_opened = self.breaker.trip(now, jitter=jitter)
        if has_opened:
            self._log_open(reason)
        self._notify()

    def suspect(self, reason: str) -> None:
        """Probe when one question alone keeps failing; open the circuit breaker if the upstream is down."""
        if self.probe is not None and not self._is_probing and not self.is_open:
            self._start_probe(self.probe, reason)

    def ended(self, question: Hashable) -> None:
        """Count a call out, however it ended."""
        self.breaker.ended(question)
        self._notify()

    def _start_probe(self, probe: Probe, reason: str = "") -> None:
        if not self._is_probing:
            self._is_probing = True
            asked_at = self._clock.monotonic()
            probe(self.upstream, lambda result: self._probed(result, asked_at, reason))

    def _probed(self, result: ProbeResult, asked_at: float, reason: str) -> None:
        self._is_probing = False
        now, jitter = self._clock.monotonic(), self._jitter()
        if result is ProbeResult.DOWN:
            self._failed_at = now
        if self.is_open:
            if result is ProbeResult.DOWN:
                self.breaker.probe_failed(now, jitter=jitter)
            else:
                self.breaker.probe_succeeded()
        elif result is ProbeResult.DOWN and self.succeeded_at < asked_at:
            self.breaker.trip(now, jitter=jitter)
            self.breaker.probe_failed(now, jitter=jitter)
            self._log_open(reason)
        self._notify()

    def _log_open(self, reason: str) -> None:
        log.error(
            "circuit breaker open: the upstream fails every call, "
            + ("requests fail at once" if self.fails_fast else "requests are held")
            + ", and a half-open probe tests it up to four times a minute",
            extra={"upstream": self.upstream.name, "reason": reason},
        )

    def _notify(self) -> None:
        for changed in tuple(self._listeners):
            changed()
