"""Selects an upstream's table of limits and errors: by host, else by dialect, else the general table."""

from functools import lru_cache
from urllib.parse import urlsplit

from kdproxy.core.models import Upstream
from kdproxy.core.provider_rules import Rules
from kdproxy.providers.rules_anthropic import ANTHROPIC
from kdproxy.providers.rules_gemini import GEMINI
from kdproxy.providers.rules_general import GENERAL
from kdproxy.providers.rules_openai import AZURE, OPENAI
from kdproxy.providers.rules_other import DEEPSEEK, GROQ, MISTRAL, OPENROUTER, TOGETHER, VLLM

TABLES: dict[str, Rules] = {
    rules.name: rules
    for rules in (
        OPENAI,
        AZURE,
        ANTHROPIC,
        GEMINI,
        DEEPSEEK,
        VLLM,
        MISTRAL,
        TOGETHER,
        GROQ,
        OPENROUTER,
        GENERAL,
    )
}
"""All tables, by the name for an upstream's `rules` setting."""


@lru_cache(maxsize=256)
def rules_of(upstream: Upstream, *, named: str | None = None, dialect: str | None = None) -> Rules:
    """Return the table of an upstream.

    Args:
        named: the table that the configuration names; it wins.
        dialect: the request's dialect, for unknown hosts.
    """
    if named is not None:
        return TABLES[named]
    host = (urlsplit(upstream.url).hostname or "").lower()
    for rules in TABLES.values():
        if any(host == end or host.endswith("." + end) for end in rules.hosts):
            return rules
    match upstream.provider or dialect:
        case "anthropic":
            return ANTHROPIC
        case "gemini":
            return GEMINI
    return GENERAL
