"""Reads a price file (built-in or the user's own) into rows and sellers, or reports all of its mistakes at once."""

from collections.abc import Callable, Mapping
from datetime import date
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any

from kdproxy.core.price import STANDARD, SUFFIXES, Price, Seller
from kdproxy.errors import ConfigError

_RATES = ("input", "cached_input", "cache_write", "cache_write_1h", "output")
_ROW_FIELDS = {"seller", "model", *_RATES, "tier", "above_input_tokens", "since", "until", "source", "read_on"}
_SELLER_FIELDS = {"hosts", "suffixes", "source", "tells_cost"}
_HINT = "Rates are decimal strings in US dollars per million tokens; see kdproxy/core/prices.toml."


def read_prices(data: Mapping[str, Any]) -> tuple[list[Price], list[Seller]]:
    """Turn a parsed price file into rows and sellers.

    Raises:
        ConfigError: lists every mistake at once.
    """
    problems = [f"prices: unknown table {name!r}" for name in data if name not in {"sellers", "price"}]
    sellers = _read_sellers(data.get("sellers", {}), problems)
    sources = {seller.name: seller.source for seller in sellers}
    rows = data.get("price", [])
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        problems.append("prices: write each row as [[price]]")
        rows = []
    prices = [
        price
        for number, row in enumerate(rows, start=1)
        if (price := _read_row(row, f"prices: row {number}", sources, problems)) is not None
    ]
    problems += _overlaps(prices)
    if problems:
        raise ConfigError(problems, hint=_HINT)
    return prices, sellers


def _read_sellers(data: object, problems: list[str]) -> list[Seller]:
    if not isinstance(data, Mapping) or not all(isinstance(fields, Mapping) for fields in data.values()):
        problems.append("prices: write each seller as [sellers.NAME]")
        return []
    sellers = []
    for name, fields in data.items():
        where = f"prices: seller {name}"
        problems += [f"{where}: unknown field {field!r}" for field in fields if field not in _SELLER_FIELDS]
        hosts = _field(fields, "hosts", _is_texts, "a list of host names", where, problems) or []
        suffixes = (
            _field(fields, "suffixes", _is_suffixes, f"a list out of {', '.join(SUFFIXES)}", where, problems) or []
        )
        source = _field(fields, "source", _is_text, "text", where, problems) or ""
        hosts = tuple(host.lower() for host in hosts)
        tells_cost = _field(fields, "tells_cost", _is_switch, "true or false", where, problems)
        sellers.append(
            Seller(name=name, hosts=hosts, suffixes=tuple(suffixes), source=source, tells_cost=bool(tells_cost))
        )
    return sellers


def _read_row(row: Mapping[str, Any], where: str, sources: Mapping[str, str], problems: list[str]) -> Price | None:
    found = len(problems)
    problems += [f"{where}: unknown field {field!r}" for field in row if field not in _ROW_FIELDS]
    problems += [f"{where}: {field} is missing" for field in ("seller", "model", "input") if field not in row]
    seller = _field(row, "seller", _is_text, "text", where, problems) or ""
    model = _field(row, "model", _is_text, "text", where, problems) or ""
    tier = _field(row, "tier", _is_text, "text", where, problems) or STANDARD
    source = _field(row, "source", _is_text, "text", where, problems) or sources.get(seller, "")
    above = _field(row, "above_input_tokens", _is_count, "a whole number", where, problems)
    since, until, read_on = (
        _field(row, field, _is_day, "a date such as 2026-01-31", where, problems)
        for field in ("since", "until", "read_on")
    )
    rates = {field: _rate(row, field, where, problems) for field in _RATES}
    if since and until and since > until:
        problems.append(f"{where}: since is after until")
    if len(problems) > found:
        return None
    return Price(
        seller=seller,
        model=model,
        tier=tier.lower(),
        above_input_tokens=-1 if above is None else above,
        since=since or date.min,
        until=until or date.max,
        source=source,
        read_on=read_on,
        **rates,
    )


def _rate(row: Mapping[str, Any], field: str, where: str, problems: list[str]) -> Decimal | None:
    text = row.get(field)
    if text is None:
        return None
    try:
        rate = Decimal(text) if isinstance(text, str) else None
    except InvalidOperation:
        rate = None
    if rate is None or not rate.is_finite() or rate < 0:
        # A TOML float has lost its exact value before it can be read here.
        problems.append(f'{where}: {field} must be a decimal string such as "0.15"')
        return None
    return rate


def _overlaps(prices: list[Price]) -> list[str]:
    """Report two rows for the same model, prompt length and day: the price would be arbitrary."""
    problems = []
    ordered = sorted(prices, key=lambda row: (row.seller, row.model, row.tier, row.above_input_tokens, row.since))
    for earlier, later in pairwise(ordered):
        same = (earlier.seller, earlier.model, earlier.tier, earlier.above_input_tokens)
        if same == (later.seller, later.model, later.tier, later.above_input_tokens) and later.since <= earlier.until:
            problems.append(f"prices: two rows for {later.seller} {later.model} hold on the same day")
    return problems


def _field(
    fields: Mapping[str, Any],
    name: str,
    fits: Callable[[object], bool],
    wanted: str,
    where: str,
    problems: list[str],
) -> Any:
    value = fields.get(name)
    if value is None or fits(value):
        return value
    problems.append(f"{where}: {name} must be {wanted}")
    return None


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != ""


def _is_switch(value: object) -> bool:
    return isinstance(value, bool)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_text, value))


def _is_suffixes(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(kind, str) and kind in SUFFIXES for kind in value)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _is_day(value: object) -> bool:
    return type(value) is date
