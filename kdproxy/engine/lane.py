"""One lane: the pace of one (upstream, credential, model), whether it is stopped, and what it has seen."""

import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from kdproxy.core.limits import Cost
from kdproxy.core.models import HeaderPairs
from kdproxy.core.pacing.pace import Pace

log = logging.getLogger("kdproxy.engine")

LaneId = tuple[str, str, str]
"""Upstream, credential fingerprint, model."""

FIRST_PROBE_SECONDS = 60.0
LONGEST_PROBE_SECONDS = 900.0
FAIL_FAST_SECONDS = 15.0
"""For at most this long after a fatal answer, the next requests get the same answer without a call."""
REVOKED_SECONDS = 600.0


class Policy(StrEnum):
    """What to do where no wait helps."""

    FAIL = "fail"
    """Fail requests at once, with the provider's own error."""
    PARK = "park"
    """Hold the lane, probe rarely, resume when the quota is back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error answer, read in full, that is the last word."""

    status: int
    headers: HeaderPairs
    body: bytes
    is_fatal: bool = False


@dataclass(slots=True, kw_only=True)
class Stop:
    """Why a lane is stopped, and when the next probe is due."""

    reason: str
    refusal: Refusal
    is_parked: bool
    """Whether requests wait; else they fail at once."""
    since: float
    probe_at: float
    back_at: float | None = None
    """When the provider says that the quota resets; None: only a payment brings it back."""
    probes: int = 0
    is_probing: bool = False


@dataclass(slots=True, kw_only=True, eq=False)
class Lane:
    """Event loop only."""

    identity: LaneId
    key_index: int
    """Which of the upstream's credentials, from 0."""
    pace: Pace
    stop: Stop | None = None
    counts: Counter[str] = field(default_factory=Counter)
    deadline_seconds: float = math.inf
    """How long an answer may take to begin, by our own settings."""
    was_full: bool = False
    """Whether `max_in_flight` has kept requests waiting: logged once."""
    waited_seconds: float = 0.0
    longest_wait_seconds: float = 0.0

    def __repr__(self) -> str:
        """Name it, with what is in flight and why it is stopped; the credential is a fingerprint."""
        stop = "" if self.stop is None else f" stopped: {self.stop.reason}"
        return f"<Lane {'/'.join(self.identity)} in_flight={self.pace.in_flight}/{self.pace.bound_in_flight}{stop}>"

    def wait(self, cost: Cost, now: float) -> float:
        """Return the seconds until a request may go; infinity: when something else has happened."""
        if self.stop is None:
            return self.pace.wait(cost, now)
        if self.stop.is_probing:
            return math.inf
        return max(self.stop.probe_at - now, self.pace.wait(cost, now))

    def halt(self, reason: str, refusal: Refusal, *, parks: bool, wait_seconds: float | None, now: float) -> None:
        """Stop, or stay stopped after a probe; the end of a call that was sent before the stop changes nothing."""
        if self.stop is not None and not self.stop.is_probing:
            return
        probes = 0 if self.stop is None else self.stop.probes + 1
        since = now if self.stop is None else self.stop.since
        if not parks:
            # The next request is the probe, one at a time; the longer the stop lasts, the rarer.
            pause = min(FAIL_FAST_SECONDS, probes * 0.5)
        else:
            pause = min(LONGEST_PROBE_SECONDS, FIRST_PROBE_SECONDS * 2.0 ** min(probes, 16))
            if wait_seconds is not None:
                # The quota resets by itself: no earlier probe helps, but clocks and headers may be wrong.
                pause = min(max(wait_seconds, 1.0), LONGEST_PROBE_SECONDS)
        if parks:
            # Logged at each probe: they are rare, and a reader of the log must not scroll back for days.
            self._log_stop("a lane is parked until the quota is back", reason, pause)
        elif self.stop is None:
            self._log_stop("lane stopped: requests fail at once", reason, pause)
        self.stop = Stop(
            reason=reason,
            refusal=refusal,
            is_parked=parks,
            since=since,
            probe_at=now + pause,
            back_at=None if wait_seconds is None else now + wait_seconds,
            probes=probes,
        )

    def revoke(self, refusal: Refusal, now: float) -> None:
        """Stop the lane of a bad credential: the other lanes take its requests."""
        self._log_stop("credential rejected: its lane is stopped", "credential", REVOKED_SECONDS)
        self.stop = Stop(
            reason="the credential is refused",
            refusal=refusal,
            is_parked=False,
            since=now,
            probe_at=now + REVOKED_SECONDS,
        )

    def log_if_full(self) -> None:
        """Log once that requests wait for the configured bound."""
        if not self.was_full and self.pace.is_full:
            self.was_full = True
            log.info(
                "requests wait: max_in_flight calls are in flight; raise it if the server can take more",
                extra={**self.fields(), "max_in_flight": self.pace.most_in_flight},
            )

    def resume(self) -> None:
        """Clear the stop: calls may go again."""
        if self.stop is not None:
            self.stop = None
            log.warning("lane resumed", extra=self.fields())

    def snapshot(self, now: float) -> dict[str, Any]:
        """Return what `stats` shows."""
        upstream, fingerprint, model = self.identity
        pace = self.pace
        return {
            "upstream": upstream,
            "credential": fingerprint,
            "model": model,
            "in_flight": pace.in_flight,
            "in_flight_bound": pace.bound_in_flight,
            "max_in_flight": pace.most_in_flight,
            "max_in_flight_reached": self.was_full,
            "limits": {
                quota.name: {
                    "limit": meter.bound,
                    "left": None if (left := meter.level(now)) is None else round(left, 1),
                    "refill": str(meter.reset.refill) if meter.is_observed else None,
                }
                for quota, meter in pace.meters.items()
            },
            "requests_per_second": pace.rate(),
            "paused_seconds": round(max(0.0, pace.paused_until - now), 3),
            "rate_limited": pace.refusals,
            "episodes": pace.episodes,
            "set_aside": pace.set_aside,
            "waited_seconds": round(self.waited_seconds, 3),
            "longest_wait_seconds": round(self.longest_wait_seconds, 3),
            "stopped": None if self.stop is None else self._stopped(self.stop, now),
            **{name: self.counts[name] for name in ("sent", "answered", "failed", "dropped", "taken_back")},
        }

    def _stopped(self, stop: Stop, now: float) -> dict[str, Any]:
        return {
            "reason": stop.reason,
            "policy": str(Policy.PARK if stop.is_parked else Policy.FAIL),
            "for_seconds": round(now - stop.since, 1),
            "back_seconds": None if stop.back_at is None else round(max(0.0, stop.back_at - now), 1),
            "next_look_seconds": round(max(0.0, stop.probe_at - now), 1),
        }

    def _log_stop(self, message: str, reason: str, pause: float) -> None:
        log.error(message, extra={**self.fields(), "reason": reason, "next_look_seconds": round(pause)})

    def fields(self) -> dict[str, str]:
        """Return the lane's fields of a log line."""
        upstream, fingerprint, model = self.identity
        return {"upstream": upstream, "credential": fingerprint, "model": model}
