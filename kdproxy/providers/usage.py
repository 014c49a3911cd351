"""What an answer says of its tokens, in each provider's words, read into one normal form (`Usage`). Pure.

Providers disagree on what lies inside what. Names do not tell, the provider's own sums do: docs/prices.md has each rule
with its source. Where counts contradict each other, `unpriced` says so: there is no price, rather than a wrong one.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from kdproxy.core.models import HeaderPairs, Usage

STANDARD = "standard"
_STANDARD_TIERS = frozenset({STANDARD, "default", "on_demand", "standard_only"})
_NO_TIERS = frozenset({"", "auto", "unspecified", "traffic_type_unspecified", "service_tier_unspecified"})
"""What a server writes that says nothing, or repeats the question."""
_TIER_HEADERS = frozenset({"x-gemini-service-tier"})
_MOST_COUNTED = 2**53
"""Beyond this a count is nonsense, and sums of such would not fit a journal line's integers."""
_CONTRADICTION = "its counts contradict each other"


def count(value: Any) -> int | None:
    """Return a count of tokens; some servers write it as `12.0` or `"12"`."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST_COUNTED
    return value if is_count else None


def tier_of(value: Any) -> str | None:
    """Return the tier that an answer names, `standard` for each provider's word for it; None: it names none."""
    if not isinstance(value, str):
        return None
    tier = value.lower().removeprefix("service_tier_")
    if tier in _NO_TIERS:
        return None
    return STANDARD if tier in _STANDARD_TIERS else tier


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
    return usage._replace(tier=told)


# -- OpenAI's dialect -----------------------------------------------------------------------------------------------


def read_openai(members: Mapping[str, Any]) -> Usage | None:
    """Read a body or an event of OpenAI's dialect; None where it says nothing of its tokens."""
    usage = _openai_usage(members)
    if usage is None:
        return None
    tier = tier_of(members.get("service_tier")) or tier_of(usage.get("service_tier"))
    if _is_anthropic(usage):
        found = read_anthropic(usage)
        return found if found is None or tier is None else found._replace(tier=tier)
    asked, answered = _details(usage, "prompt", "input"), _details(usage, "completion", "output")
    cached = _most(
        *(asked.get(name) for name in ("cached_tokens", "cache_read_tokens", "cache_read_input_tokens")),
        *(usage.get(name) for name in ("prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")),
    )
    written = _most(
        *(asked.get(name) for name in ("cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens")),
        *(usage.get(name) for name in ("cache_write_tokens", "cache_creation_input_tokens")),
    )
    parts = _Parts(
        input=_first(usage, "prompt_tokens", "input_tokens"),
        output=_first(usage, "completion_tokens", "output_tokens"),
        # Servers that do not add up write 0.
        total=count(usage.get("total_tokens")) or None,
        reasoning=_most(answered.get("reasoning_tokens"), usage.get("reasoning_tokens")) or 0,
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
        cache_write_1h_tokens=_hour(usage.get("cache_creation")),
        reasoning_tokens=_most(answered.get("reasoning_tokens"), usage.get("reasoning_tokens")),
        audio_input_tokens=count(asked.get("audio_tokens")),
        audio_output_tokens=count(answered.get("audio_tokens")),
        unpriced=solved.unpriced or _beside_tokens(usage),
    )
    return None if found == Usage(None, None) else found._replace(tier=tier)


def _openai_usage(members: Mapping[str, Any]) -> dict[str, Any] | None:
    """Find `usage`: in the event, in Groq's own member, or in its last choice (Moonshot)."""
    groq = members.get("x_groq")
    for holder in (members, groq, *reversed(list(_objects(members.get("choices"))))):
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
        unpriced = None if total is None else _CONTRADICTION
    elif rest < 0 and rest != -cache:
        unpriced = _CONTRADICTION
    return parts._replace(input=given, output=answered, unpriced=unpriced)


def _difference(total: int | None, part: int | None) -> int | None:
    return None if total is None or part is None or part > total else total - part


def _beside_tokens(usage: Mapping[str, Any]) -> str | None:
    """Say what is billed beside tokens: searches (xAI, Perplexity), audio by the second (Mistral)."""
    for name in ("num_sources_used", "num_search_queries", "prompt_audio_seconds"):
        value = usage.get(name)
        if isinstance(value, int | float) and value > 0:
            return f"{name} is billed beside its tokens"
    return None


def _details(usage: Mapping[str, Any], *sides: str) -> dict[str, Any]:
    for side in sides:
        for name in (f"{side}_tokens_details", f"{side}_token_details"):
            if isinstance(usage.get(name), dict):
                return dict(usage[name])
    return {}


# -- Anthropic ------------------------------------------------------------------------------------------------------


def read_anthropic(usage: Any) -> Usage | None:
    """Read Anthropic's `usage`: input_tokens leaves cached tokens out, so both cache counters are added in."""
    if not isinstance(usage, dict):
        return None
    fresh = count(usage.get("input_tokens"))
    read = count(usage.get("cache_read_input_tokens"))
    written = count(usage.get("cache_creation_input_tokens"))
    by_age = usage.get("cache_creation")
    if isinstance(by_age, dict):
        ages = [found for found in map(count, by_age.values()) if found is not None]
        written = max(written or 0, sum(ages)) if ages else written
    details = _details(usage, "output")
    found = Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=count(usage.get("output_tokens")),
        cached_input_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=_hour(by_age),
        reasoning_tokens=_most(details.get("thinking_tokens"), details.get("reasoning_tokens")),
        unpriced=_anthropic_extra(usage),
    )
    return None if found == Usage(None, None) else found._replace(tier=tier_of(usage.get("service_tier")))


def _anthropic_extra(usage: Mapping[str, Any]) -> str | None:
    """Say what has a price of its own: fast mode, inference in one country, searches, turns of other models."""
    if usage.get("speed") not in (None, "standard"):
        return f"speed {usage['speed']}"
    if usage.get("inference_geo") not in (None, "", "global", "not_available"):
        return f"inference_geo {usage['inference_geo']}"
    tools = usage.get("server_tool_use")
    if isinstance(tools, dict) and count(tools.get("web_search_requests")):
        return "web searches are billed beside its tokens"
    turns = {turn.get("type") for turn in _objects(usage.get("iterations"))}
    return "iterations that its counts leave out" if turns - {"message"} else None


def _hour(by_age: Any) -> int | None:
    return count(by_age.get("ephemeral_1h_input_tokens")) if isinstance(by_age, dict) else None


# -- Gemini ---------------------------------------------------------------------------------------------------------


def read_gemini(usage: Any) -> Usage | None:
    """Read Gemini's `usageMetadata`: thoughts lie beside candidates, tokens of tools' results beside the prompt."""
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
            answered = (answered or 0) - thoughts  # a gateway has added them in already
        elif tool and rest == -tool:
            tool = 0
        elif rest != -(cached or 0):
            unpriced = _CONTRADICTION
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


def _modality(details: Any, wanted: str) -> int | None:
    counts = [count(row.get("tokenCount")) or 0 for row in _objects(details) if row.get("modality") == wanted]
    return sum(counts) if counts else None


# -- streams --------------------------------------------------------------------------------------------------------


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
            self._tellers |= {choice.get("index") for choice in _objects(event.get("choices")) if choice.get("usage")}
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


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    return (item for item in (value if isinstance(value, list) else ()) if isinstance(item, dict))


def _first(usage: Mapping[str, Any], *names: str) -> int | None:
    return next((found for name in names if (found := count(usage.get(name))) is not None), None)


def _most(*values: Any) -> int | None:
    """Return the largest that is a count: gateways repeat one count under several names, some left at 0."""
    return max((found for value in values if (found := count(value)) is not None), default=None)
