"""Builds parts of the proxy from its settings: lanes, prices, start checks. app.py puts them together."""

import resource
import tomllib
from datetime import UTC, date, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from kdproxy.core.limits import QUOTAS
from kdproxy.core.models import HeaderPairs, Upstream, Usage
from kdproxy.core.pricing import UNKNOWN_BILL, Bill, PriceTable
from kdproxy.engine.cached_call import Price
from kdproxy.engine.clock import SystemClock
from kdproxy.engine.lane import Policy
from kdproxy.engine.lanes import Lanes, LaneSettings
from kdproxy.engine.reach import StartCheck, credential_headers
from kdproxy.engine.server_kind import ServerKinds
from kdproxy.errors import ConfigError
from kdproxy.settings import Settings, UpstreamSettings
from kdproxy.storage.lane_memory import LaneMemory


def start_check(settings: Settings, upstream: Upstream, marks: HeaderPairs) -> StartCheck:
    """Return how an upstream is checked at start."""
    # A credential is sent at start only where the configuration names it for this very upstream.
    is_named = any(each.name == upstream.name and each.credential_env for each in settings.upstreams)
    keys = settings.credentials.get(upstream.name, ()) if is_named else ()
    return StartCheck(
        upstream=upstream,
        credentials=tuple(credential_headers(upstream, key.reveal()) for key in keys),
        marks=marks,
        fails_fast=settings.fail_fast,
    )


def lanes(settings: Settings, clock: SystemClock, kinds: ServerKinds, memory: LaneMemory) -> Lanes:
    """Build the lanes."""
    # Each call takes one connection, and its client another.
    most_calls = max(1, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)

    def of(upstream: UpstreamSettings | None) -> LaneSettings:
        found = upstream or UpstreamSettings(name="", url="")
        return LaneSettings(
            policy=Policy(found.policy or settings.spent_policy),
            allowed={QUOTAS[name]: limit for name, limit in found.limits.items()},
            most_in_flight=min(found.max_in_flight or settings.max_in_flight, most_calls),
            deadline_seconds=settings.first_byte_seconds,
            rules=found.rules,
        )

    settings_of = {upstream.name: of(upstream) for upstream in settings.upstreams}
    return Lanes(
        clock, settings_of, otherwise=of(None), kinds=kinds, remembered=memory.lanes, fails_fast=settings.fail_fast
    )


def price(settings: Settings, clock: SystemClock) -> Price:
    """Build what prices an answer. Raises ConfigError."""
    table = PriceTable.load(None if settings.prices is None else _read_prices(settings.prices))
    seller_of = lru_cache(maxsize=256)(table.seller_of)

    def bill(upstream: Upstream, model: str | None, usage: Usage | None) -> Bill:
        seller = seller_of(upstream)
        if seller is None or model is None or usage is None:
            return UNKNOWN_BILL
        return table.bill(seller, model, usage, at_date=_day(int(clock.now()) // _DAY_SECONDS))

    return bill


_DAY_SECONDS = 86_400


@lru_cache(maxsize=1)
def _day(number: int) -> date:
    """Return the day, in UTC, of so many days since 1970."""
    return datetime.fromtimestamp(number * _DAY_SECONDS, UTC).date()


def _read_prices(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError([f"prices: {path} cannot be read ({error})"], hint="See docs/prices.md.") from error
