"""Counts and tiers as answers write them, before they mean anything. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any

STANDARD = "standard"
CONTRADICTION = "its counts contradict each other"
_STANDARD_TIERS = frozenset({STANDARD, "default", "on_demand", "standard_only"})
_NO_TIERS = frozenset({"", "auto", "unspecified", "traffic_type_unspecified", "service_tier_unspecified"})
"""What a server writes that says nothing, or repeats the question."""
_MOST_COUNTED = 2**53
"""Beyond this a count is nonsense, and sums of such would not fit a journal line's integers."""


def count(value: Any) -> int | None:
    """Return a count of tokens; some servers write it as `12.0` or `"12"`."""
    if type(value) is int:  # nearly all are, and an answer has some twenty of them, most left out
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
    """Return the tier that an answer names, `standard` for each provider's word for it; None: it names none."""
    if not isinstance(value, str):
        return None
    tier = value.lower().removeprefix("service_tier_")
    if tier in _NO_TIERS:
        return None
    return STANDARD if tier in _STANDARD_TIERS else tier


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Return the objects of a list; none of anything else."""
    return (item for item in (value if isinstance(value, list) else ()) if isinstance(item, dict))


def object_of(value: Any) -> Mapping[str, Any]:
    """Return a value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def first(usage: Mapping[str, Any], *names: str) -> int | None:
    """Return the first of these members that is a count."""
    for name in names:
        if (found := count(usage.get(name))) is not None:
            return found
    return None


def most(*values: Any) -> int | None:
    """Return the largest that is a count: gateways repeat one count under several names, some left at 0."""
    largest = None
    for value in values:
        if value is not None and (found := count(value)) is not None and (largest is None or found > largest):
            largest = found
    return largest


def details(usage: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """Return the breakdown of one side of a count: the first of these members that is an object."""
    for name in names:
        found = usage.get(name)
        if isinstance(found, dict):
            return found
    return _NOTHING


_NOTHING: Mapping[str, Any] = {}


def hour(by_age: Any) -> int | None:
    """Return what was written to the one-hour cache, of Anthropic's `cache_creation`."""
    return count(by_age.get("ephemeral_1h_input_tokens")) if isinstance(by_age, dict) else None
