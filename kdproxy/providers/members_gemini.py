"""Gemini's members. The API takes each name in both spellings, `cachedContent` and `cached_content`."""

from kdproxy.providers import tool
from kdproxy.providers.member import Member, Standing, rows, table

_SDK = "google-genai 3.6.1 (Python), types, read 2026-11-30"

_NOT_PURE = (
    Member("tools[]", Standing.HOSTED, "a tool that runs at the provider", _SDK, tool.hosted_gemini),
    *(
        Member(name, Standing.STATE, "the question depends on what the provider holds", _SDK)
        for name in ("cachedContent", "cached_content", "continuationToken", "continuation_token")
    ),
)
_CREDENTIALS = (
    *rows(
        Standing.CREDENTIAL,
        "who asks the tool's server",
        _SDK,
        "tools[].mcpServers[].streamableHttpTransport.headers.*credential*",
        "tools[].mcp_servers[].streamable_http_transport.headers.*credential*",
        *("tools[].googleMaps.authConfig", "tools[].google_maps.auth_config"),
        *("tools[].retrieval.externalApi.apiAuth", "tools[].retrieval.external_api.api_auth"),
    ),
    *rows(
        Standing.HIDDEN,
        "what the tool's server is told",
        _SDK,
        "tools[].mcpServers[].streamableHttpTransport.headers",
        "tools[].mcp_servers[].streamable_http_transport.headers",
    ),
)
_LABELS = rows(Standing.OUT, "labels of the bill", _SDK, "labels")

GENERATE = table(_LABELS, _NOT_PURE, _CREDENTIALS)
METHODS = table(
    _LABELS,
    _NOT_PURE,
    (
        Member(
            "generateContentRequest.cachedContent",
            Standing.STATE,
            "the count depends on what the provider holds",
            _SDK,
        ),
    ),
)

_STATE = "depends on what the provider holds, or runs there"
INTERACTIONS = table(
    _LABELS,
    (
        Member("stream", Standing.OUT, "how the answer travels; a sample keeps one recording per form", _SDK),
        Member("webhook_config", Standing.OUT, "who is told when it is done", _SDK),
        Member("store", Standing.OUT, "false, or it is no question", _SDK),
        Member("tools[]", Standing.HOSTED, "a tool that runs at the provider", _SDK, tool.hosted),
    ),
    tuple(
        Member(name, Standing.STATE, _STATE, _SDK)
        for name in (
            *("previous_interaction_id", "background", "agent", "agent_config", "environment", "cached_content"),
            *("continuation_token", "credentials"),
        )
    ),
    rows(Standing.CREDENTIAL, "who asks the tool's server", _SDK, "tools[].headers.*credential*"),
    rows(Standing.HIDDEN, "what the tool's server is told", _SDK, "tools[].headers", "tools[].url"),
)
