"""One price: a row of the table, and the cost of a number of tokens at its rates."""

import re
from dataclasses import dataclass
from datetime import date
from decimal import Decimal, localcontext

from kdproxy.core.models import Usage

STANDARD = "standard"

# Each provider's suffix for the dated snapshots of one model. A name with any other suffix is another model.
SUFFIXES = {
    "date": r"-20\d\d-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])",
    "compact-date": r"-20\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])",
    "version": r"-\d{3}",
    "latest": r"-latest",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One row, in US dollars per million tokens. A rate of None is unknown, or not sold."""

    seller: str
    model: str
    input: Decimal | None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    cache_write_1h: Decimal | None = None
    output: Decimal | None = None
    tier: str = STANDARD
    """The tier as the answer names it, such as `flex`; `batch` is a tier too."""
    above_input_tokens: int = -1
    """The row applies to prompts longer than this, and then to all of their tokens."""
    since: date = date.min
    until: date = date.max
    source: str = ""
    read_on: date | None = None
    """Last day on which `source` is known to have shown this row."""

    @property
    def name(self) -> str:
        """A short name: `SELLER/MODEL`, then `;TIER` unless standard, then `;>TOKENS` for long prompts."""
        tier = "" if self.tier == STANDARD else f";{self.tier}"
        above = "" if self.above_input_tokens < 0 else f";>{self.above_input_tokens}"
        return f"{self.seller}/{self.model}{tier}{above}"

    def cost(self, usage: Usage) -> Decimal | None:
        """Return what `usage` costs in US dollars, or None if a count or the rate for one is unknown.

        Audio has separate rates, which no row holds.
        """
        if usage.input_tokens is None or usage.unpriced or usage.audio_input_tokens or usage.audio_output_tokens:
            return None
        cached = usage.cached_input_tokens or 0
        hour = usage.cache_write_1h_tokens or 0
        written = (usage.cache_write_tokens or 0) - hour
        plain = usage.input_tokens - cached - written - hour
        # Embeddings have no output, so neither a rate nor a count for it. Elsewhere a missing count is unknown.
        output = 0 if usage.output_tokens is None and self.output is None else usage.output_tokens
        if output is None or min(plain, cached, written, hour, output) < 0:
            return None
        parts = (
            (plain, self.input),
            (cached, self.cached_input),
            (written, self.cache_write),
            (hour, self.cache_write_1h),
            (output, self.output),
        )
        total = Decimal(0)
        with localcontext(prec=60):  # exact, whatever the caller's decimal context
            for tokens, rate in parts:
                if tokens and rate is None:
                    return None
                total += tokens * (rate or Decimal(0))
            return total.scaleb(-6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Seller:
    """Who bills, the hosts that it answers at, and how it names dated snapshots of one model."""

    name: str
    hosts: tuple[str, ...] = ()
    suffixes: tuple[str, ...] = ()
    source: str = ""
    tells_cost: bool = False
    """Whether its answers state their cost. A stated cost takes precedence over all rows except the user's own."""

    def family(self, model: str) -> str | None:
        """Return the name that `model` is a documented snapshot of, or None."""
        if not self.suffixes:
            return None
        ending = "|".join(SUFFIXES[kind] for kind in self.suffixes)
        match = re.fullmatch(rf"(.+?)(?:{ending})", model)
        return match[1] if match else None

    def over(self, other: "Seller | None") -> "Seller":
        """Return this seller merged over another of its name: hosts are added, other fields replaced."""
        if other is None:
            return self
        return Seller(
            name=self.name,
            hosts=other.hosts + self.hosts,
            suffixes=self.suffixes or other.suffixes,
            source=self.source or other.source,
            tells_cost=self.tells_cost or other.tells_cost,
        )
