"""What to fetch and what comes back: the types that the retry loop shares with its callers."""

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kdproxy.core.limits import Cost
from kdproxy.core.models import Upstream
from kdproxy.core.ports import UpstreamRequest, UpstreamResponse
from kdproxy.core.provider_rules import Rules
from kdproxy.core.sniff import Kind
from kdproxy.engine.call_record import CallRecord
from kdproxy.engine.lane import Refusal
from kdproxy.engine.permit import Permit
from kdproxy.engine.validator import Validator
from kdproxy.providers.base import Judgement


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """When to stop."""

    total_seconds: float
    """From the first attempt to the last, waits included; a rate limit is not bounded by it but by who waits."""
    max_attempts: int | None = None
    """That failed, whatever they cost; None: as their kind of failure has it."""
    fails_fast: bool = False
    """Whether a call that was not sent, or that the server was not ready for, is given up after its first attempt."""


class FetchRequest(NamedTuple):
    """What is to be fetched."""

    request: Callable[[int], UpstreamRequest]
    """Makes the call for the credential of that index."""
    cost: Cost
    rules: Rules
    run: str = ""
    deadline_seconds: float = math.inf
    """How long its client waits."""
    whole_bytes: int = 0
    """Up to so many bytes of a body that is no stream are read before it counts as had: one that is cut failed."""
    question: Hashable = None
    """What is asked, so that its failures count when it is asked again; None: it will not be."""
    validator: Validator | None = None
    """Judges a body that has been read whole; None: any will do."""


class FetchedResponse(NamedTuple):
    """An answer's head. `Fetcher.completed`, `incomplete` or `aborted` must be called at the end of its body."""

    response: UpstreamResponse
    permit: Permit
    call: CallRecord
    kind: Kind | None = None
    """What its body is by its first bytes."""
    judgement: Judgement | None = None
    """What it is worth, where it has been read whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GaveUp:
    """Attempts or time ran out before the provider relented."""

    wait_seconds: float
    """When to ask again."""
    is_rate_limit: bool
    reason: str
    last: Refusal | None
    """The provider's last word, if it said any."""
    billed_calls: int = 0
    """How many calls of this question may have been billed without an answer; more than 0: no retry helps now."""


class Billing(Protocol):
    """Knows whether calls cost money."""

    def is_billed(self, upstream: Upstream, model: str) -> bool:
        """Say so, as far as is known now; yes where it is not."""

    async def find_out(self, upstream: Upstream) -> None:
        """Ask the server, if it may be asked; a few seconds at most."""


class EachBilled:
    """The pessimistic answer."""

    def is_billed(self, upstream: Upstream, model: str) -> bool:
        """Each call does."""
        return True

    async def find_out(self, upstream: Upstream) -> None:
        """There is nothing to ask."""


class LastError(NamedTuple):
    """How a question's last call ended that may have been billed."""

    reason: str
    refusal: Refusal | None
