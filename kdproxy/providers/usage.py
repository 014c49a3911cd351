"""Reads the token counts of an answer, in each provider's format, into one normal form (`Usage`). Pure.

Providers differ in which counts include which. The names do not show it, the provider's own totals do: docs/prices.md
has each rule with its source. If counts contradict each other, `unpriced` says so: no price is better than a wrong one.
"""

from collections.abc import Mapping
from typing import Any

from kdproxy.core.models import HeaderPairs, Usage
from kdproxy.providers.usage_count import STANDARD, count, objects, tier_of
from kdproxy.providers.usage_native import read_anthropic, read_gemini, read_interaction
from kdproxy.providers.usage_openai import read_openai

__all__ = ["UsageMeter", "as_served", "read_anthropic", "read_gemini", "read_interaction", "read_openai"]


_TIER_HEADERS = frozenset({"x-gemini-service-tier"})


def as_served(usage: Usage | None, *, asked: Mapping[str, Any] | None, headers: HeaderPairs) -> Usage | None:
    """Add the tier from the response's headers and the request.

    The answer's own tier takes precedence. If it names none, but a tier with another price was requested, the price is
    unknown.
    """
    if usage is None or usage.tier is not None:
        return usage
    tier = None
    for name, value in headers:
        if name.lower() in _TIER_HEADERS:
            tier = tier_of(value)
            break
    if tier is None and asked is not None and ("service_tier" in asked or "serviceTier" in asked):
        wanted = tier_of(asked.get("service_tier", asked.get("serviceTier")))
        tier = None if wanted in (None, STANDARD) else "unknown"
    return usage if tier is None else usage._replace(tier=tier)


class UsageMeter:
    """Collects the usage in the events of one stream. Counts are cumulative: the last one applies."""

    def __init__(self) -> None:
        self._counts: dict[str, Any] = {}
        self._usage: Usage | None = None
        self._tier: str | None = None
        self._choices_with_usage: set[Any] = set()
        """Choices that carried their own usage."""

    def take_openai(self, event: Mapping[str, Any]) -> None:
        """Take a chunk of OpenAI's dialect."""
        self._tier = tier_of(event.get("service_tier")) or self._tier
        usage = read_openai(event)
        if usage is None or (self._usage is not None and not (usage.input_tokens or usage.output_tokens)):
            return  # a last chunk of zeros does not reset the counts
        if not isinstance(event.get("usage"), dict):
            self._choices_with_usage |= {
                choice.get("index") for choice in objects(event.get("choices")) if choice.get("usage")
            }
        else:
            self._choices_with_usage.clear()
        self._usage = usage

    def take_anthropic(self, usage: Any) -> None:
        """Take the `usage` of an Anthropic event. Compatible servers report the input in the first or the last one."""
        if not isinstance(usage, dict):
            return
        for name, value in usage.items():
            known, new = count(self._counts.get(name)), count(value)
            if value is not None and (known is None or new is None or new >= known):
                self._counts[name] = value
        self._usage = read_anthropic(self._counts)

    def take_gemini(self, usage: Any) -> None:
        """Take the `usageMetadata` of a Gemini chunk."""
        if isinstance(usage, dict):
            self._counts.update({name: value for name, value in usage.items() if value is not None})
            self._usage = read_gemini(self._counts)

    @property
    def usage(self) -> Usage | None:
        """The usage so far; None: none has come."""
        if self._usage is None:
            return None
        found = self._usage._replace(tier=self._usage.tier or self._tier)
        return (
            found if len(self._choices_with_usage) < 2 else found._replace(unpriced="each choice reports its own usage")
        )
