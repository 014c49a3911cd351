"""Running totals of this process: what was asked, served, bought and saved."""

from collections import Counter
from decimal import Decimal

from kdproxy.core.models import Disposition


class Ledger:
    """Counts."""

    def __init__(self) -> None:
        self.requests: Counter[Disposition] = Counter()
        self.upstream_attempts = 0
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

    def bought(
        self, *, attempts: int, input_tokens: int | None, output_tokens: int | None, usd: Decimal | None
    ) -> None:
        """Count one answer that was bought and kept."""
        self.upstream_attempts += attempts
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
            "upstream_attempts": self.upstream_attempts,
            "stored": self.stored,
            "input_tokens": self.input_tokens if is_counted else None,
            "output_tokens": self.output_tokens if is_counted else None,
            "uncounted_answers": self.uncounted_answers,
            "bought_usd": str(self.bought_usd) if is_priced else None,
            "unpriced_answers": self.unpriced_answers,
        }
