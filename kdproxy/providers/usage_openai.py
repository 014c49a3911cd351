"""Usage in OpenAI's dialect, as OpenAI and all that is compatible with it tell it. Pure.

Names do not tell what lies inside what, the provider's own sums do.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, NamedTuple

from kdproxy.core.models import Usage
from kdproxy.providers.usage_count import CONTRADICTION, count, details, first, hour, most, object_of, objects, tier_of
from kdproxy.providers.usage_native import read_anthropic


def read_openai(members: Mapping[str, Any]) -> Usage | None:
    """Read a body or an event of OpenAI's dialect; None where it says nothing of its tokens."""
    usage = _openai_usage(members)
    if usage is None:
        return None
    tier = tier_of(members.get("service_tier")) or tier_of(usage.get("service_tier"))
    if _is_anthropic(usage):
        found = read_anthropic(usage)
        return found if found is None or tier is None else found._replace(tier=tier)
    asked, answered = details(usage, "prompt", "input"), details(usage, "completion", "output")
    cached = most(
        *(asked.get(name) for name in ("cached_tokens", "cache_read_tokens", "cache_read_input_tokens")),
        *(usage.get(name) for name in ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")),
    )
    written = most(
        *(asked.get(name) for name in ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")),
        *(usage.get(name) for name in ("cache_write_tokens", "cache_creation_input_tokens")),
    )
    parts = _Parts(
        input=first(usage, "prompt_tokens", "input_tokens"),
        output=first(usage, "completion_tokens", "output_tokens"),
        # Servers that do not add up write 0.
        total=count(usage.get("total_tokens")) or None,
        reasoning=most(answered.get("reasoning_tokens"), usage.get("reasoning_tokens")) or 0,
        cache=(cached or 0) + (written or 0),
    )
    missed = count(usage.get("prompt_cache_miss_tokens"))
    if parts.input is None and missed is not None:
        parts = parts._replace(input=missed + (cached or 0))
    solved = _solve(parts)
    found = Usage(
        input_tokens=solved.input,
        output_tokens=solved.output,
        cached_input_tokens=cached,
        cache_write_tokens=written,
        cache_write_1h_tokens=hour(usage.get("cache_creation")),
        reasoning_tokens=most(answered.get("reasoning_tokens"), usage.get("reasoning_tokens")),
        audio_input_tokens=count(asked.get("audio_tokens")) or None,  # most write 0, in each answer
        audio_output_tokens=count(answered.get("audio_tokens")) or None,
        told_usd=_told_usd(usage),
        unpriced=solved.unpriced or _beside_tokens(usage),
    )
    return None if found == Usage(None, None) else found._replace(tier=tier)


def _openai_usage(members: Mapping[str, Any]) -> dict[str, Any] | None:
    """Find `usage`: in the event, in Groq's own member, or in its last choice (Moonshot)."""
    groq = members.get("x_groq")
    for holder in (members, groq, *reversed(list(objects(members.get("choices"))))):
        usage = holder.get("usage") if isinstance(holder, Mapping) else None
        if isinstance(usage, dict):
            return usage
    return None


def _is_anthropic(usage: Mapping[str, Any]) -> bool:
    """Whether a gateway has put Anthropic's counts, in which cached tokens lie beside `input_tokens`, as they are."""
    names = usage.keys()
    return (
        "input_tokens" in names
        and not {"prompt_tokens", "total_tokens"} & names
        and bool({"cache_read_input_tokens", "cache_creation_input_tokens"} & names)
    )


class _Parts(NamedTuple):
    input: int | None
    output: int | None
    total: int | None
    reasoning: int
    cache: int
    """Read from the cache and written to it."""
    unpriced: str | None = None


def _solve(parts: _Parts) -> _Parts:
    """Say what input and output are, by the provider's own total; more input or output than named is billed too.

    - What the total holds beyond its two parts is the reasoning (xAI), the cache, or both, where the sums say so;
      else it is output (Gemini's OpenAI layer leaves its thoughts out).
    - More cached tokens than input, or more reasoning than output: they lie beside it.
    """
    given, answered, total, reasoning, cache, _ = parts
    if given is None and None not in (answered, total) and not reasoning:
        given = _difference(total, answered)
    if answered is None and None not in (given, total):
        answered = _difference(total, given) or None  # embeddings have no output
    if given is None or answered is None:
        return parts._replace(input=given, output=answered)
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
    return parts._replace(input=given, output=answered, unpriced=unpriced)


def _difference(total: int | None, part: int | None) -> int | None:
    return None if total is None or part is None or part > total else total - part


_TICKS = Decimal(10) ** 10
"""Of xAI's in a dollar."""


def _told_usd(usage: Mapping[str, Any]) -> str | None:
    """Return the bill in the answer: xAI's ticks; OpenRouter's cost, with what a key of the user's own is billed."""
    ticks = count(usage.get("cost_in_usd_ticks"))
    if ticks is not None:
        return f"{Decimal(ticks) / _TICKS:f}"
    parts: list[Any] = [usage.get("cost")]
    if usage.get("is_byok"):
        parts.append(object_of(usage.get("cost_details")).get("upstream_inference_cost"))
    amounts = [Decimal(str(part)) for part in parts if type(part) in (int, float) and 0 <= part < _MOST_USD]
    return f"{sum(amounts):f}" if len(amounts) == len(parts) else None


_MOST_USD = 1e6
"""Beyond this the cost of one answer is nonsense."""


def _beside_tokens(usage: Mapping[str, Any]) -> str | None:
    """Say what is billed beside tokens: searches (xAI, Perplexity), audio by the second (Mistral)."""
    for name in ("num_sources_used", "num_search_queries", "prompt_audio_seconds"):
        value = usage.get(name)
        if isinstance(value, int | float) and value > 0:
            return f"{name} is billed beside its tokens"
    return None
