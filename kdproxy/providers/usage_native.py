"""Reads usage in Anthropic's and Gemini's own dialects. Pure."""

from collections.abc import Mapping
from typing import Any

from kdproxy.core.models import Usage
from kdproxy.providers.usage_count import CONTRADICTION, count, details, hour, most, objects, tier_of


def read_anthropic(usage: Any) -> Usage | None:
    """Read Anthropic's `usage`: input_tokens excludes cached tokens, so both cache counters are added."""
    if not isinstance(usage, dict):
        return None
    fresh = count(usage.get("input_tokens"))
    read = count(usage.get("cache_read_input_tokens"))
    written = count(usage.get("cache_creation_input_tokens"))
    by_age = usage.get("cache_creation")
    if isinstance(by_age, dict):
        ages = [found for found in map(count, by_age.values()) if found is not None]
        written = max(written or 0, sum(ages)) if ages else written
    answered = details(usage, "output_tokens_details", "output_token_details")
    found = Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=count(usage.get("output_tokens")),
        cached_input_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=hour(by_age),
        reasoning_tokens=most(answered.get("thinking_tokens"), answered.get("reasoning_tokens")),
        unpriced=_anthropic_extra(usage),
    )
    return None if found == Usage(None, None) else found._replace(tier=tier_of(usage.get("service_tier")))


def _anthropic_extra(usage: Mapping[str, Any]) -> str | None:
    """Return what is priced separately: fast mode, inference in one country, searches, turns of other models."""
    if usage.get("speed") not in (None, "standard"):
        return f"speed {usage['speed']}"
    if usage.get("inference_geo") not in (None, "", "global", "not_available"):
        return f"inference_geo {usage['inference_geo']}"
    tools = usage.get("server_tool_use")
    if isinstance(tools, dict) and count(tools.get("web_search_requests")):
        return "web searches are billed in addition to tokens"
    turns = {turn.get("type") for turn in objects(usage.get("iterations"))}
    return "iterations that its counts leave out" if turns - {"message"} else None


def read_gemini(usage: Any) -> Usage | None:
    """Read Gemini's `usageMetadata`: candidates exclude thoughts, and the prompt excludes tokens of tool results."""
    if not isinstance(usage, dict):
        return None
    prompt = count(usage.get("promptTokenCount"))
    tool = count(usage.get("toolUsePromptTokenCount")) or 0
    thoughts = count(usage.get("thoughtsTokenCount"))
    cached = count(usage.get("cachedContentTokenCount"))
    total = count(usage.get("totalTokenCount"))
    parts = (count(usage.get("candidatesTokenCount")), thoughts)
    answered = None if parts == (None, None) else sum(part or 0 for part in parts)
    unpriced = None
    if prompt is not None and total:
        rest = total - prompt - tool - (answered or 0)
        if rest >= 0:
            answered = (answered or 0) + rest
        elif thoughts and rest == -thoughts:
            answered = (answered or 0) - thoughts  # a gateway has already added them
        elif tool and rest == -tool:
            tool = 0
        elif rest != -(cached or 0):
            unpriced = CONTRADICTION
    images = _modality(usage.get("candidatesTokensDetails"), "IMAGE")
    found = Usage(
        input_tokens=None if prompt is None else prompt + tool,
        output_tokens=answered,
        cached_input_tokens=cached,
        reasoning_tokens=thoughts,
        audio_input_tokens=_modality(usage.get("promptTokensDetails"), "AUDIO"),
        audio_output_tokens=_modality(usage.get("candidatesTokensDetails"), "AUDIO"),
        unpriced=unpriced or ("image tokens" if images else None),
    )
    tier = tier_of(usage.get("serviceTier")) or tier_of(usage.get("trafficType"))
    return None if found == Usage(None, None) else found._replace(tier=tier)


_INTERACTION = {
    "promptTokenCount": "total_input_tokens",
    "candidatesTokenCount": "total_output_tokens",
    "thoughtsTokenCount": "total_thought_tokens",
    "toolUsePromptTokenCount": "total_tool_use_tokens",
    "cachedContentTokenCount": "total_cached_tokens",
    "totalTokenCount": "total_tokens",
}
_BY_MODALITY = {
    "promptTokensDetails": "input_tokens_by_modality",
    "candidatesTokensDetails": "output_tokens_by_modality",
}


def read_interaction(interaction: Mapping[str, Any]) -> Usage | None:
    """Read the usage of an interaction: the same counts under other names."""
    usage = interaction.get("usage")
    if not isinstance(usage, dict):
        return None
    counts: dict[str, Any] = {name: usage.get(other) for name, other in _INTERACTION.items()}
    for name, other in _BY_MODALITY.items():
        counts[name] = [
            {"modality": str(row.get("modality")).upper(), "tokenCount": row.get("tokens")}
            for row in objects(usage.get(other))
        ]
    found = read_gemini({**counts, "serviceTier": interaction.get("service_tier")})
    if found is not None and any(count(row.get("count")) for row in objects(usage.get("grounding_tool_count"))):
        return found._replace(unpriced="searches are billed in addition to tokens")
    return found


def _modality(details: Any, wanted: str) -> int | None:
    counts = [count(row.get("tokenCount")) or 0 for row in objects(details) if row.get("modality") == wanted]
    return sum(counts) if counts else None
