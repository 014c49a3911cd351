"""Reads usage in OpenAI's dialect, from OpenAI and compatible servers. Pure.

The names do not show which counts include which; the provider's own totals do.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from kdproxy.core.models import Usage
from kdproxy.providers.usage_count import CONTRADICTION, count, details, first, hour, most, object_of, objects, tier_of
from kdproxy.providers.usage_native import read_anthropic


def read_openai(members: Mapping[str, Any]) -> Usage | None:
    """Read a body or an event of OpenAI's dialect; None if it has no token counts."""
    usage = _openai_usage(members)
    if usage is None:
        return None
    tier = None
    if "service_tier" in members or "service_tier" in usage:
        tier = tier_of(members.get("service_tier")) or tier_of(usage.get("service_tier"))
    if "input_tokens" in usage and _is_anthropic(usage):
        found = read_anthropic(usage)
        return found if found is None or tier is None else found._replace(tier=tier)
    # Runs for each answer: plain look-ups, since a generator over names costs more than the look-ups themselves.
    given = first(usage, "prompt_tokens", "input_tokens")
    answered = first(usage, "completion_tokens", "output_tokens")
    total = count(usage.get("total_tokens")) or None  # servers that compute no total write 0
    if _SIMPLE.issuperset(usage):
        given, answered, unpriced = _solve(given, answered, total, reasoning=0, cache=0)
        return None if given is None and answered is None else Usage(given, answered, tier=tier, unpriced=unpriced)
    of, asked_of, answered_of = usage.get, details(usage, *_INPUT_DETAILS).get, details(usage, *_OUTPUT_DETAILS).get
    cached = most(
        asked_of("cached_tokens"),
        asked_of("cache_read_tokens"),
        asked_of("cache_read_input_tokens"),
        of("prompt_cache_hit_tokens"),
        of("cached_tokens"),
        of("cache_read_input_tokens"),
    )
    written = most(
        asked_of("cache_write_tokens"),
        asked_of("cache_creation_tokens"),
        asked_of("cache_creation_input_tokens"),
        of("cache_write_tokens"),
        of("cache_creation_input_tokens"),
    )
    reasoning = most(answered_of("reasoning_tokens"), of("reasoning_tokens"))
    if given is None and (missed := count(of("prompt_cache_miss_tokens"))) is not None:
        given = missed + (cached or 0)
    given, answered, unpriced = _solve(
        given, answered, total, reasoning=reasoning or 0, cache=(cached or 0) + (written or 0)
    )
    found = Usage(
        given,
        answered,
        cached,
        written,
        hour(of("cache_creation")),
        reasoning,
        count(asked_of("audio_tokens")) or None,  # most servers write 0
        count(answered_of("audio_tokens")) or None,
        tier,
        _told_usd(usage),
        unpriced or _beside_tokens(usage),
    )
    return None if given is None and answered is None and found == Usage(None, None, tier=tier) else found


_SIMPLE = frozenset({"prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "total_tokens"})
"""Usage of these alone, as most servers of one's own send it, takes half the time."""
_INPUT_DETAILS = ("prompt_tokens_details", "prompt_token_details", "input_tokens_details", "input_token_details")
_OUTPUT_DETAILS = (
    *("completion_tokens_details", "completion_token_details", "output_tokens_details", "output_token_details"),
)


def _openai_usage(members: Mapping[str, Any]) -> dict[str, Any] | None:
    """Find `usage`: in the event, in Groq's own member, or in the last choice (Moonshot)."""
    usage = members.get("usage")
    if isinstance(usage, dict):
        return usage
    for holder in (members.get("x_groq"), *reversed(list(objects(members.get("choices"))))):
        usage = holder.get("usage") if isinstance(holder, Mapping) else None
        if isinstance(usage, dict):
            return usage
    return None


def _is_anthropic(usage: Mapping[str, Any]) -> bool:
    """Whether a gateway has passed on Anthropic's counts, in which `input_tokens` excludes cached tokens."""
    return (
        "input_tokens" in usage
        and "prompt_tokens" not in usage
        and "total_tokens" not in usage
        and ("cache_read_input_tokens" in usage or "cache_creation_input_tokens" in usage)
    )


def _solve(
    given: int | None, answered: int | None, total: int | None, *, reasoning: int, cache: int
) -> tuple[int | None, int | None, str | None]:
    """Return input, output, and why there is no price; input and output beyond the named classes are billed too.

    The provider's own total decides:

    - An excess of the total over its two parts is the reasoning (xAI), the cache, or both, if the sums match; else it
      is output (Gemini's OpenAI layer leaves thoughts out).
    - More cached tokens than input, or more reasoning than output, means that they are not included in it.

    Args:
        cache: tokens read from the cache and written to it.
    """
    if given is None and None not in (answered, total) and not reasoning:
        given = _difference(total, answered)
    if answered is None and None not in (given, total):
        answered = _difference(total, given) or None  # embeddings have no output
    if given is None or answered is None:
        return given, answered, None
    rest = 0 if total is None else total - given - answered
    if cache and (cache > given or (rest != reasoning and rest in (cache, cache + reasoning))):
        given += cache
        rest -= cache if rest >= cache else 0
    unpriced = None
    if rest > 0:
        answered = max(answered + rest, reasoning)
    elif reasoning > answered:
        answered += reasoning
        unpriced = None if total is None else CONTRADICTION
    elif rest < 0 and rest != -cache:
        unpriced = CONTRADICTION
    return given, answered, unpriced


def _difference(total: int | None, part: int | None) -> int | None:
    return None if total is None or part is None or part > total else total - part


_TICKS = Decimal(10) ** 10
"""xAI's ticks per US dollar."""


def _told_usd(usage: Mapping[str, Any]) -> str | None:
    """Return the cost stated in the answer: xAI's ticks, or OpenRouter's cost plus the bill of the user's own key."""
    ticks = count(usage.get("cost_in_usd_ticks"))
    if ticks is not None:
        return f"{Decimal(ticks) / _TICKS:f}"
    cost = usage.get("cost")
    if cost is None:
        return None
    parts: list[Any] = [cost]
    if usage.get("is_byok"):
        parts.append(object_of(usage.get("cost_details")).get("upstream_inference_cost"))
    amounts = [Decimal(str(part)) for part in parts if type(part) in (int, float) and 0 <= part < _MOST_USD]
    return f"{sum(amounts):f}" if len(amounts) == len(parts) else None


_MOST_USD = 1e6
"""A larger cost of one answer is invalid."""


def _beside_tokens(usage: Mapping[str, Any]) -> str | None:
    """Return what is billed in addition to tokens: searches (xAI, Perplexity), audio by the second (Mistral)."""
    for name in ("num_sources_used", "num_search_queries", "prompt_audio_seconds"):
        value = usage.get(name)
        if value and isinstance(value, int | float) and value > 0:
            return f"{name} is billed in addition to tokens"
    return None
