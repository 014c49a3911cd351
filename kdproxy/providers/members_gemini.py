"""Gemini's members. The API takes each name in both spellings, `cachedContent` and `cached_content`."""

from kdproxy.providers import tool
from kdproxy.providers.member import Member, Standing, rows, table

_SDK = "google-genai 3.6.1 (Python), types, read 2026-11-30"

_NOT_PURE = (
    Member("tools[]", Standing.HOSTED, "a tool that runs at the provider", _SDK, tool.hosted_gemini),
    *(
        Member(name, Standing.STATE, "the question depends on state at the provider", _SDK)
        for name in ("cachedContent", "cached_content", "continuationToken", "continuation_token")
    ),
)
_CREDENTIALS = (
    *rows(
        Standing.CREDENTIAL,
        "credential for the tool's server",
        _SDK,
        "tools[].mcpServers[].streamableHttpTransport.headers.*credential*",
        "tools[].mcp_servers[].streamable_http_transport.headers.*credential*",
        *("tools[].googleMaps.authConfig", "tools[].google_maps.auth_config"),
        *("tools[].retrieval.externalApi.apiAuth", "tools[].retrieval.external_api.api_auth"),
    ),
    *rows(
        Standing.HIDDEN,
        "sent to the tool's server",
        _SDK,
        "tools[].mcpServers[].streamableHttpTransport.headers",
        "tools[].mcp_servers[].streamable_http_transport.headers",
    ),
)
_LABELS = rows(Standing.OUT, "labels on the bill", _SDK, "labels")

GENERATE = table(_LABELS, _NOT_PURE, _CREDENTIALS)
METHODS = table(
    _LABELS,
    _NOT_PURE,
    (
        Member(
            "generateContentRequest.cachedContent",
            Standing.STATE,
            "the count depends on state at the provider",
            _SDK,
        ),
    ),
)

_STATE = "depends on state at the provider, or runs there"
INTERACTIONS = table(
    _LABELS,
    (
        Member("stream", Standing.OUT, "how the answer is transferred; a sample keeps one recording per form", _SDK),
        Member("webhook_config", Standing.OUT, "who is notified when it is done", _SDK),
        Member("store", Standing.OUT, "false; any other value is not cacheable", _SDK),
        Member("tools[]", Standing.HOSTED, "a tool that runs at the provider", _SDK, tool.hosted),
    ),
    tuple(
        Member(name, Standing.STATE, _STATE, _SDK)
        for name in (
            *("previous_interaction_id", "background", "agent", "agent_config", "environment", "cached_content"),
            *("continuation_token", "credentials"),
        )
    ),
    rows(Standing.CREDENTIAL, "credential for the tool's server", _SDK, "tools[].headers.*credential*"),
    rows(Standing.HIDDEN, "sent to the tool's server", _SDK, "tools[].headers", "tools[].url"),
)
