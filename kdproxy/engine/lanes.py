"""All lane queues and lanes: made at the first request, removed after an hour without use, shown in `stats`."""

import math
import random
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kdproxy.core.limits import Allowance
from kdproxy.core.models import Upstream
from kdproxy.core.pacing.memory import STALE_SECONDS, Remembered
from kdproxy.core.pacing.pace import Pace
from kdproxy.core.ports import Clock
from kdproxy.core.provider_rules import Rules
from kdproxy.core.server_kind import is_free, is_public
from kdproxy.engine.lane import Lane, LaneId, Policy
from kdproxy.engine.lane_queue import LaneQueue
from kdproxy.engine.server_kind import ServerKinds
from kdproxy.engine.upstream_health import UpstreamHealth
from kdproxy.providers.rules import rules_of
from kdproxy.providers.rules_other import VLLM

IDLE_SECONDS = 3_600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSettings:
    """What is configured for one upstream."""

    policy: Policy = Policy.FAIL
    allowed: Allowance = field(default_factory=dict)
    most_in_flight: int = 1_024
    deadline_seconds: float = math.inf
    """How long an answer may take to begin."""
    rules: str | None = None
    """Name of the table of limits and errors; None: inferred from the host."""


class Lanes:
    """Event loop only."""

    def __init__(
        self,
        clock: Clock,
        settings: Mapping[str, LaneSettings] | None = None,
        *,
        otherwise: LaneSettings | None = None,
        kinds: ServerKinds | None = None,
        remembered: Iterable[Remembered] = (),
        jitter: Callable[[], float] = random.random,
        fails_fast: bool = False,
    ) -> None:
        self._clock = clock
        self._settings = dict(settings or {})
        self._otherwise = otherwise or LaneSettings()
        self._kinds = kinds
        self._remembered = {(lane.upstream, lane.credential, lane.model): lane for lane in remembered}
        """Of lanes that are not there (yet), as they were last."""
        self._jitter = jitter
        self._fails_fast = fails_fast
        self._health: dict[str, UpstreamHealth] = {}
        self._queues: OrderedDict[tuple[str, tuple[str, ...], str], LaneQueue] = OrderedDict()
        """The longest unused one first."""

    def rules(self, upstream: Upstream, dialect: str | None) -> Rules:
        """Return the table of limits and errors of an upstream."""
        return rules_of(upstream, named=self._of(upstream.name).rules, dialect=dialect)

    def queue(self, upstream: Upstream, credentials: Sequence[str], model: str, rules: Rules) -> LaneQueue:
        """Return the queue to a model, with a lane for each credential (their fingerprints)."""
        identity = (upstream.name, tuple(credentials), model)
        now = self._clock.monotonic()
        self._retire(now)
        queue = self._queues.get(identity)
        if queue is None:
            queue = self._queues[identity] = self._build(upstream, identity[1], model, rules)
        queue.used_at = now
        self._queues.move_to_end(identity)
        if not queue.is_recognised and self._kinds is not None:
            # It is asked only once that matters: answers take a good part of what their clients wait.
            ask = self._kinds.of if queue.is_slow else self._kinds.known
            found = ask(upstream)
            if found is not None:
                is_billed = upstream.billed if upstream.billed is not None else not is_free(found, upstream, model)
                queue.recognise(found, is_free=not is_billed)
        return queue

    def _retire(self, now: float) -> None:
        """Remove lanes that were not used for an hour: with a new token for each call there would be thousands."""
        while self._queues:
            identity, queue = next(iter(self._queues.items()))
            if now - queue.used_at < IDLE_SECONDS:
                return
            if queue.is_idle:
                self._remembered.update(self._learned_of(queue))
                del self._queues[identity]
            else:
                queue.used_at = now
                self._queues.move_to_end(identity)

    def learned(self) -> list[Remembered]:
        """Return what lanes have learned, those that have gone or were not used since the start included."""
        found = dict(self._remembered)
        for queue in self._queues.values():
            found.update(self._learned_of(queue))
        now = self._clock.now()
        return [lane for lane in found.values() if now - lane.at < STALE_SECONDS]

    def _learned_of(self, queue: LaneQueue) -> dict[LaneId, Remembered]:
        at = self._clock.now() - (self._clock.monotonic() - queue.used_at)
        return {
            lane.identity: Remembered(
                upstream=lane.identity[0],
                credential=lane.identity[1],
                model=lane.identity[2],
                learned=learned,
                at=at,
            )
            for lane in queue.lanes
            if not (learned := lane.pace.learned).is_empty
        }

    def outages(self, within_seconds: float) -> list[dict[str, object]]:
        """Return each upstream that has failed lately and has not answered since, why, and how many wait for it."""
        found = []
        for name, health in self._health.items():
            outage = health.outage(within_seconds)
            if outage is not None:
                held = sum(queue.waiting for queue in self._queues.values() if queue.health.upstream.name == name)
                found.append({**outage, "waiting": held})
        return found

    def snapshot(self) -> list[dict[str, Any]]:
        """Return each lane as `stats` shows it, with its queue's queue and its upstream's breaker."""
        rows = []
        for queue in self._queues.values():
            now = queue.now()
            drain = queue.drain_seconds()
            shared = {
                "queued": queue.waiting,
                "drain_seconds": None if drain is None else round(drain, 1),
                "policy": str(queue.policy),
                "breaker": str(queue.health.breaker.state),
                "breaker_opened": queue.health.breaker.opened,
                "retry_budget": queue.health.budget.tokens,
            }
            rows += [{**lane.snapshot(now), **shared} for lane in queue.lanes]
        return rows

    def _of(self, upstream: str) -> LaneSettings:
        return self._settings.get(upstream, self._otherwise)

    def _build(self, upstream: Upstream, credentials: tuple[str, ...], model: str, rules: Rules) -> LaneQueue:
        settings = self._of(upstream.name)
        health = self._health.get(upstream.name)
        if health is None:
            health = self._health[upstream.name] = UpstreamHealth(
                upstream, self._clock, self._jitter, fails_fast=self._fails_fast
            )
        lanes = tuple(
            Lane(
                identity=(upstream.name, fingerprint, model),
                key_index=index,
                deadline_seconds=settings.deadline_seconds,
                pace=Pace(
                    is_hosted=is_public(upstream.url) and rules is not VLLM,
                    expects_headers=bool(rules.hosts and rules.limits),
                    allowed=settings.allowed,
                    is_strict=rules.is_strict,
                    finds_rate=rules.finds_rate,
                    most_in_flight=settings.most_in_flight,
                ),
            )
            for index, fingerprint in enumerate(credentials)
        )
        for lane in lanes:
            if rules is VLLM:
                lane.pace.recognise(is_batching=True)
            if (remembered := self._remembered.get(lane.identity)) is not None:
                lane.pace.restore(remembered.learned)
        return LaneQueue(
            health=health,
            lanes=lanes,
            policy=settings.policy,
            clock=self._clock,
            jitter=self._jitter,
            is_free=upstream.billed is False,
        )
