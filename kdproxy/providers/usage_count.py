"""Parses the counts and tiers in answers, without interpreting them. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

STANDARD = "standard"
CONTRADICTION = "its counts contradict each other"
_STANDARD_TIERS = frozenset({STANDARD, "default", "on_demand", "standard_only"})
_NO_TIERS = frozenset({"", "auto", "unspecified", "traffic_type_unspecified", "service_tier_unspecified"})
"""Tier values without meaning, or that repeat the request."""
_MOST_COUNTED = 2**53
"""Larger counts are invalid, and their sums would not fit the integers of a journal line."""


def count(value: Any) -> int | None:
    """Return a count of tokens; some servers write it as `12.0` or `"12"`."""
    if type(value) is int:  # nearly always; an answer has about twenty counts, most of them absent
        return value if 0 <= value <= _MOST_COUNTED else None
    if value is None:
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value <= _MOST_COUNTED else None


def tier_of(value: Any) -> str | None:
    """Return the tier that an answer names, `standard` for a provider's name of the standard tier; None: no tier."""
    if not isinstance(value, str):
        return None
    tier = value.lower().removeprefix("service_tier_")
    if tier in _NO_TIERS:
        return None
    return STANDARD if tier in _STANDARD_TIERS else tier


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Return the objects in a list; an empty result for any other value."""
    return (item for item in (value if isinstance(value, list) else ()) if isinstance(item, dict))


def object_of(value: Any) -> Mapping[str, Any]:
    """Return a value if it is an object, else an empty object."""
    return value if isinstance(value, dict) else {}


def first(usage: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of these members that is a count."""
    for name in names:
        if (found := count(usage.get(name))) is not None:
            return found
    return None


def most(*values: Any) -> int | None:
    """Return the largest count of these: gateways repeat a count under several names and leave some at 0."""
    largest = None
    for value in values:
        if value is not None and (found := count(value)) is not None and (largest is None or found > largest):
            largest = found
    return largest


def details(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return the details of a count: the first of these members that is an object."""
    for name in names:
        found = usage.get(name)
        if isinstance(found, dict):
            return found
    return _NOTHING


_NOTHING: Mapping[str, Any] = {}


def hour(by_age: Any) -> int | None:
    """Return the tokens written to the one-hour cache, from Anthropic's `cache_creation`."""
    return count(by_age.get("ephemeral_1h_input_tokens")) if isinstance(by_age, dict) else None
