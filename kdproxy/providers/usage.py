"""What an answer says of its tokens, in each provider's words, read into one normal form (`Usage`). Pure."""

from collections.abc import Mapping
from typing import Any

from kdproxy.core.models import Usage
from kdproxy.providers.base import integer


def read_openai(members: Mapping[str, Any]) -> Usage | None:
    """Read a body or an event of OpenAI's dialect: prompt_tokens counts cached tokens in."""
    usage = members.get("usage")
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details")
    prompt = usage.get("prompt_tokens", usage.get("input_tokens"))
    answer = usage.get("completion_tokens", usage.get("output_tokens"))
    return Usage(
        input_tokens=integer(prompt),
        output_tokens=integer(answer),
        cached_input_tokens=integer(details.get("cached_tokens")) if isinstance(details, dict) else None,
    )


def read_anthropic(usage: Any) -> Usage | None:
    """Read Anthropic's `usage`: input_tokens leaves cached tokens out here, so both cache counters are added in."""
    if not isinstance(usage, dict):
        return None
    fresh = integer(usage.get("input_tokens"))
    read = integer(usage.get("cache_read_input_tokens"))
    written = integer(usage.get("cache_creation_input_tokens"))
    return Usage(
        input_tokens=None if fresh is None else fresh + (read or 0) + (written or 0),
        output_tokens=integer(usage.get("output_tokens")),
        cached_input_tokens=read,
        cache_write_tokens=written,
    )


def read_gemini(usage: Any) -> Usage | None:
    """Read Gemini's `usageMetadata`; thoughts are billed as output."""
    if not isinstance(usage, dict):
        return None
    answer = integer(usage.get("candidatesTokenCount"))
    thoughts = integer(usage.get("thoughtsTokenCount"))
    return Usage(
        input_tokens=integer(usage.get("promptTokenCount")),
        output_tokens=None if answer is None and thoughts is None else (answer or 0) + (thoughts or 0),
        cached_input_tokens=integer(usage.get("cachedContentTokenCount")),
    )


class UsageMeter:
    """Takes what the events of one stream say of its usage; the counts are cumulative, a later one replaces an earlier.

    Its readers take `usage` itself (Anthropic), `usageMetadata` (Gemini), or an event (OpenAI's dialect).
    """

    def __init__(self) -> None:
        self._counts: dict[str, Any] = {}
        self._usage: Usage | None = None

    def take_openai(self, event: Mapping[str, Any]) -> None:
        """Take a chunk of OpenAI's dialect."""
        self._usage = read_openai(event) or self._usage

    def take_anthropic(self, usage: Any) -> None:
        """Take the `usage` of an event of Anthropic's."""
        if isinstance(usage, dict):
            self._counts.update({name: count for name, count in usage.items() if count is not None})
            self._usage = read_anthropic(self._counts)

    def take_gemini(self, usage: Any) -> None:
        """Take the `usageMetadata` of a chunk of Gemini's."""
        self._usage = read_gemini(usage) or self._usage

    @property
    def usage(self) -> Usage | None:
        """What has been told so far; None: nothing."""
        return self._usage
