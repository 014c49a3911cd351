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
