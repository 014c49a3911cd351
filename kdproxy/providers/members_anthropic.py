"""Anthropic's members."""

from typing import Any

from kdproxy.providers import tool
from kdproxy.providers.member import Member, Standing, is_given, rows, table

_SDK = "anthropic 2.14.0 (Python), parameter types, read 2026-11-30"

_BLOCKS = "messages[].content[]"


def _continues(thread: Any) -> bool:
    return thread is not None and not (isinstance(thread, dict) and thread.get("type") == "create")


def _is_zero(count: Any) -> bool:
    return bool(count == 0)


MESSAGES = table(
    (
        Member("stream", Standing.OUT, "how the answer is transferred; a sample keeps one recording per form", _SDK),
        Member("metadata", Standing.OUT, "holds `user_id`, an identifier for abuse reports", _SDK),
        Member("billing_policy", Standing.OUT, "who is billed", _SDK),
        Member("fallback_credit_token", Standing.CREDENTIAL, "a discount after a refusal; dies in 5 minutes", _SDK),
    ),
    rows(
        Standing.OUT,
        "the provider's cache: price and latency",
        _SDK,
        *("cache_control", "system[].cache_control", "tools[].cache_control"),
        *(f"{_BLOCKS}.cache_control", f"{_BLOCKS}.content[].cache_control"),
        *(f"{_BLOCKS}.content[].content[].cache_control", f"{_BLOCKS}.source.content[].cache_control"),
        *(f"{_BLOCKS}.content[].source.content[].cache_control", f"{_BLOCKS}.tool.definition.cache_control"),
    ),
    rows(Standing.CREDENTIAL, "credential for the tool's server", _SDK, "mcp_servers[].authorization_token"),
    rows(Standing.HIDDEN, "a URL may hold a secret", _SDK, "mcp_servers[].url"),
    rows(Standing.CREDENTIAL, "the account that is billed: some gateways accept it in the body", _SDK, "*credential*"),
    (
        Member("tools[]", Standing.HOSTED, "a tool that runs at the provider", _SDK, tool.hosted),
        Member(_BLOCKS, Standing.HOSTED, "the same, added in a message", _SDK, tool.hosted_addition),
        Member("mcp_servers", Standing.HOSTED, "the provider asks a server", _SDK),
        Member("container", Standing.HOSTED, "code runs at the provider", _SDK),
        Member("model", Standing.HOSTED, "a model or suffix that searches the web", _SDK, tool.searches),
        Member("thread", Standing.STATE, "`continue`: the conversation is at the provider", _SDK, _continues),
        Member("max_tokens", Standing.STATE, "0 fills the cache and asks for no answer", _SDK, _is_zero),
        Member("diagnostics.previous_message_id", Standing.STATE, "asks about an earlier call", _SDK, is_given),
    ),
    rows(Standing.IN, "another model may answer", _SDK, "fallbacks"),
    rows(Standing.IN, "changes which part of the input the model sees", _SDK, "context_management", "compaction"),
    rows(Standing.IN, "price and speed, and which machines answer", _SDK, "service_tier", "speed", "inference_geo"),
)
