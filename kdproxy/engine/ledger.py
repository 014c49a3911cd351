"""Running totals of this process: requests, calls, answers stored, tokens and dollars."""

from collections import Counter
from decimal import Decimal
from enum import StrEnum

from kdproxy.core.models import Disposition
from kdproxy.errors import UpstreamFailed


class CallOutcome(StrEnum):
    """What became of a model call that went out; an attempt that reached no server is no call."""

    ANSWERED = "answered"
    REFUSED = "refused"
    """The provider refused it in full: it costs nothing."""
    MAYBE_BILLED = "maybe_billed"
    """It failed so that the model may have run."""
    ABANDONED = "abandoned"
    """The proxy stopped it: no client waited any more, or the proxy shut down."""


def outcome_of(error: UpstreamFailed) -> CallOutcome | None:
    """Return what became of a call that failed; None: it reached no server."""
    if not error.was_sent:
        return None
    return CallOutcome.MAYBE_BILLED if error.maybe_billed else CallOutcome.REFUSED


class Ledger:
    """Counts."""

    def __init__(self) -> None:
        self.requests: Counter[Disposition] = Counter()
        self.calls: Counter[CallOutcome] = Counter()
        self.calls_in_flight = 0
        self.calls_passed = 0
        """Calls that are no model calls."""
        self.probes = 0
        """GETs by which the proxy tests whether an upstream answers."""
        self.stored = 0
        self.input_tokens = 0
        self.output_tokens = 0
        self.bought_usd = Decimal(0)
        self.uncounted_answers = 0
        """Bought answers without a token count: the sums of tokens leave them out."""
        self.unpriced_answers = 0
        """Bought answers whose price is unknown: `bought_usd` leaves them out."""

    def count(self, disposition: Disposition) -> None:
        """Count one request."""
        self.requests[disposition] += 1

    def call_began(self) -> None:
        """Count a model call that goes out."""
        self.calls_in_flight += 1

    def call_ended(self, outcome: CallOutcome | None) -> None:
        """Count what became of it. None: it reached no server."""
        self.calls_in_flight -= 1
        if outcome is not None:
            self.calls[outcome] += 1

    def passed(self) -> None:
        """Count a call that is no model call."""
        self.calls_passed += 1

    def probed(self) -> None:
        """Count a GET of ours."""
        self.probes += 1

    def bought(self, *, input_tokens: int | None, output_tokens: int | None, usd: Decimal | None) -> None:
        """Count one answer that was bought and kept."""
        self.stored += 1
        if input_tokens is None and output_tokens is None:
            self.uncounted_answers += 1
        self.input_tokens += input_tokens or 0
        self.output_tokens += output_tokens or 0
        if usd is None:
            self.unpriced_answers += 1
        else:
            self.bought_usd += usd

    def as_dict(self) -> dict[str, object]:
        """Return the totals for `stats`; sums of which nothing is known are None, not 0."""
        is_counted = self.uncounted_answers < self.stored or not self.stored
        is_priced = self.unpriced_answers < self.stored or not self.stored
        return {
            "requests": {str(disposition): self.requests[disposition] for disposition in Disposition},
            "upstream_attempts": sum(self.calls.values()) + self.calls_in_flight,
            "calls": {
                **{str(outcome): self.calls[outcome] for outcome in CallOutcome},
                "in_flight": self.calls_in_flight,
                "passed_through": self.calls_passed,
                "probes": self.probes,
            },
            "stored": self.stored,
            "input_tokens": self.input_tokens if is_counted else None,
            "output_tokens": self.output_tokens if is_counted else None,
            "uncounted_answers": self.uncounted_answers,
            "bought_usd": str(self.bought_usd) if is_priced else None,
            "unpriced_answers": self.unpriced_answers,
        }
