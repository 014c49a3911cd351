"""The cost of an answer, by the list prices of seller and model, exact in Decimal; None if anything is unknown.

Pure: no clock (the day is an argument), no network. The built-in table is `prices.toml` beside this file: package data
that says where and when each row was read. A user's override file has the same format. A wrong cost is worse than no
cost: no model is priced by a similar name, and a missing price never counts as 0.

Counts arrive in one normal form (`Usage`, made by providers/usage.py): `input_tokens` is *all* input, `output_tokens`
all output. The classes with separate rates are subtracted here.
"""

import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from decimal import Decimal
from importlib.resources import files
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from kdproxy.core.models import Upstream, Usage
from kdproxy.core.price import STANDARD, Price, Seller
from kdproxy.core.pricefile import read_prices

STATED = "told"
"""Source of a cost that the answer itself states."""


class Bill(NamedTuple):
    """The cost of an answer, and the row of the table behind it."""

    usd: Decimal | None = None
    row: str | None = None
    """`SELLER/MODEL`, with tier and prompt length where they matter; `told` if the answer states its cost."""


UNKNOWN_BILL = Bill()


class PriceTable:
    """Prices by seller and model."""

    def __init__(
        self, prices: Iterable[Price], sellers: Iterable[Seller], *, own: Iterable[tuple[str, str]] = ()
    ) -> None:
        self._own = frozenset(own)
        """Sellers and models that the user prices: there a cost stated in the answer is ignored."""
        self._sellers = {seller.name: seller for seller in sellers}
        self._hosts = {host: seller.name for seller in self._sellers.values() for host in seller.hosts}
        self._rows: dict[tuple[str, str], list[Price]] = {}
        for price in prices:
            self._rows.setdefault((price.seller, price.model), []).append(price)

    @classmethod
    def load(cls, override: Mapping[str, Any] | None = None) -> "PriceTable":
        """Build the table from the built-in data, with a parsed override file merged over it.

        A model that the override names is priced by the override only.

        Raises:
            ConfigError: the override holds mistakes; all of them are listed.
        """
        text = files("kdproxy.core").joinpath("prices.toml").read_text(encoding="utf-8")
        prices, sellers = read_prices(tomllib.loads(text))
        if override is None:
            return cls(prices, sellers)
        own_prices, own_sellers = read_prices(override)
        named = {(price.seller, price.model) for price in own_prices}
        kept = [price for price in prices if (price.seller, price.model) not in named]
        known = {seller.name: seller for seller in sellers}
        merged = {own.name: own.over(known.get(own.name)) for own in own_sellers}
        return cls([*kept, *own_prices], (known | merged).values(), own=named)

    def seller_of(self, upstream: Upstream) -> str | None:
        """Return who bills: by the host, else the upstream's name, which an override can price.

        A local server named `openai` is not OpenAI: the name of a known seller counts only at its host.
        """
        parts = urlsplit(upstream.url)
        found = self._hosts.get(parts.netloc.lower()) or self._hosts.get(parts.hostname or "")
        return found or (None if upstream.name in self._sellers else upstream.name)

    def find(
        self,
        seller: str,
        model: str,
        *,
        tier: str = STANDARD,
        input_tokens: int = 0,
        at_date: date | None = None,
    ) -> Price | None:
        """Return the row for a model, else for the model that it is a snapshot of; at `at_date`, or the newest."""
        rows = self._rows.get((seller, model))
        if rows is None and seller in self._sellers:
            family = self._sellers[seller].family(model)
            rows = self._rows.get((seller, family)) if family else None
        if at_date is not None:
            rows = [row for row in rows or () if row.since <= at_date <= row.until]
        fitting = [row for row in rows or () if row.tier == tier and input_tokens > row.above_input_tokens]
        return max(fitting, key=lambda row: (row.since, row.above_input_tokens), default=None)

    def price(self, seller: str, model: str, usage: Usage, *, at_date: date | None = None) -> Decimal | None:
        """Return the cost of one answer in US dollars, as `bill` does."""
        return self.bill(seller, model, usage, at_date=at_date).usd

    def bill(self, seller: str, model: str, usage: Usage, *, at_date: date | None = None) -> Bill:
        """Return the cost of one answer and its source; no cost if the model, the tier, a count or a rate is unknown.

        A cost stated in the answer counts if the seller is known to state its bill there, else the list price. An
        answer that names no tier counts as standard.

        Args:
            seller: as `seller_of` names it.
            model: as the request or the answer spells it.
            usage: tokens in the normal form.
            at_date: the day of the call (UTC); None takes the newest row.
        """
        stated = usage.told_usd
        if stated is not None and (seller, model) not in self._own and self._states_cost(seller):
            return Bill(Decimal(stated), STATED)
        tier = usage.tier or STANDARD
        row = self.find(seller, model, tier=tier, input_tokens=usage.input_tokens or 0, at_date=at_date)
        usd = None if row is None else row.cost(usage)
        return Bill(usd, None if row is None or usd is None else row.name)

    def _states_cost(self, seller: str) -> bool:
        return seller in self._sellers and self._sellers[seller].tells_cost
