"""Predicates for the member tables: which tools and models read outside data at the time of the call.

Tools that the client runs, and those that search the request's own tools, are pure. An unknown tool counts as hosted.
"""

import re
from typing import Any

_CLIENT_TYPES = frozenset(
    {
        *("function", "custom", "namespace", "tool_search", "apply_patch", "local_shell"),
        *("computer", "computer_use_preview", "computer_use"),
    }
)
"""OpenAI's pure tools (openai 3.57.0, responses/tool_param, read 2026-11-30): run by the client, or tool search."""
_CLIENT_STARTS = ("bash_", "text_editor_", "computer_", "memory_", "browser_toolset_", "tool_search_tool_")
"""Anthropic's pure tools (anthropic 2.14.0, beta_tool_union_param, read 2026-11-30); types end in a date."""
_CLIENT_MEMBERS = frozenset({"functionDeclarations", "function_declarations", "computerUse", "computer_use"})
"""Gemini's tools are objects with one member per tool (google-genai 3.6.1, types.Tool, read 2026-11-30)."""

_SEARCHING = re.compile(
    r"""
    :online$                                    # OpenRouter's suffix for web search
    | -online$ | (?:^|[/-])sonar(?:$|[-:])      # Perplexity
    | -search-(?:preview|api)                   # OpenAI
    | deep-re?search
    | (?:^|/)compound(?:$|[-:])                 # Groq: a model with built-in tools
    """,
    re.VERBOSE | re.IGNORECASE,
)


def searches(model: Any) -> str | None:
    """Return a model's name if it belongs to a model that searches the web."""
    return model if isinstance(model, str) and _SEARCHING.search(model) is not None else None


def hosted(tool: Any) -> str | None:
    """Return the type of a tool of OpenAI's or Anthropic's dialect that runs at the provider, or None."""
    if not isinstance(tool, dict):
        return "of an unknown kind"
    kind = tool.get("type")
    if kind is None:
        # Mistral's and Anthropic's plain tools; gateways pass {"googleSearch": {}} on
        return None if isinstance(tool.get("function"), dict) or "name" in tool else hosted_gemini(tool)
    if kind == "shell":
        environment = tool.get("environment")
        is_local = isinstance(environment, dict) and environment.get("type") == "local"
        return None if is_local else "shell"
    if kind == "namespace":
        inner = tool.get("tools")
        return next(filter(None, map(hosted, inner)), None) if isinstance(inner, list) else "namespace"
    is_client = isinstance(kind, str) and (kind in _CLIENT_TYPES or kind.startswith(_CLIENT_STARTS))
    return None if is_client else str(kind)


def hosted_gemini(tool: Any) -> str | None:
    """Return the name of a tool of Gemini's dialect that runs at the provider, or None."""
    if not isinstance(tool, dict):
        return "of an unknown kind"
    names = sorted(set(tool) - _CLIENT_MEMBERS)
    return names[0] if names else None


def hosted_addition(block: Any) -> str | None:
    """Return the hosted tool that a block of an Anthropic message adds, or None."""
    if not isinstance(block, dict) or block.get("type") != "tool_addition":
        return None
    match block.get("tool"):
        case {"type": "tool_definition", "definition": definition}:
            return hosted(definition)
        case {"type": "tool_reference"}:
            return None  # one of the request's own tools, which are checked separately
        case _:
            return "tool_addition"


def is_reference(item: Any) -> bool:
    """Whether an item of a Responses input refers to an item stored at the provider; its type may be absent."""
    if not isinstance(item, dict):
        return False
    return item.get("type") == "item_reference" or (item.get("type") is None and set(item) - {"type"} == {"id"})


def is_unversioned(prompt: Any) -> bool:
    """Whether a stored prompt has no version, so that it can change."""
    return prompt is not None and not (isinstance(prompt, dict) and bool(prompt.get("version")))
