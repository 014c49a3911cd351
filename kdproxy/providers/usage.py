"""What an answer says of its tokens, in each provider's words, read into one normal form (`Usage`). Pure.

Providers disagree on what lies inside what. Names do not tell, the provider's own sums do: docs/prices.md has each rule
with its source. Where counts contradict each other, `unpriced` says so: there is no price, rather than a wrong one.
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
    """Add what the response's headers and the request say of the tier.

    The answer's word counts. Where it has none, but a tier with another price was asked for, nobody knows the price.
    """
    if usage is None or usage.tier is not None:
        return usage
    told = next((tier_of(value) for name, value in headers if name.lower() in _TIER_HEADERS), None)
    if told is None and asked is not None:
        wanted = tier_of(asked.get("service_tier", asked.get("serviceTier")))
        told = None if wanted in (None, STANDARD) else "unknown"
    return usage if told is None else usage._replace(tier=told)


class UsageMeter:
    """Takes what the events of one stream say of its usage. Counts are cumulative: the last one told holds."""

    def __init__(self) -> None:
        self._counts: dict[str, Any] = {}
        self._usage: Usage | None = None
        self._tier: str | None = None
        self._tellers: set[Any] = set()
        """Choices that carried usage of their own."""

    def take_openai(self, event: Mapping[str, Any]) -> None:
        """Take a chunk of OpenAI's dialect."""
        self._tier = tier_of(event.get("service_tier")) or self._tier
        told = read_openai(event)
        if told is None or (self._usage is not None and not (told.input_tokens or told.output_tokens)):
            return  # a last chunk of zeros takes nothing back
        if not isinstance(event.get("usage"), dict):
            self._tellers |= {choice.get("index") for choice in objects(event.get("choices")) if choice.get("usage")}
        else:
            self._tellers.clear()
        self._usage = told

    def take_anthropic(self, usage: Any) -> None:
        """Take the `usage` of an event of Anthropic's. Compatible servers tell the input in the first, or the last."""
        if not isinstance(usage, dict):
            return
        for name, value in usage.items():
            known, told = count(self._counts.get(name)), count(value)
            if value is not None and (known is None or told is None or told >= known):
                self._counts[name] = value
        self._usage = read_anthropic(self._counts)

    def take_gemini(self, usage: Any) -> None:
        """Take the `usageMetadata` of a chunk of Gemini's."""
        if isinstance(usage, dict):
            self._counts.update({name: value for name, value in usage.items() if value is not None})
            self._usage = read_gemini(self._counts)

    @property
    def usage(self) -> Usage | None:
        """What has been told so far; None: nothing."""
        if self._usage is None:
            return None
        found = self._usage._replace(tier=self._usage.tier or self._tier)
        return found if len(self._tellers) < 2 else found._replace(unpriced="each choice tells usage of its own")
