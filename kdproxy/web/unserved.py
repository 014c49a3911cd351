"""Requests that a proxy behind a base URL cannot serve, refused before they cost anything."""

from kdproxy.core.models import Headers
from kdproxy.errors import RequestRefused

_SIGNED = "aws4-"
"""AWS4-HMAC-SHA256 (SigV4) and AWS4-ECDSA-P256-SHA256 (SigV4a)."""


def check_served(headers: Headers, query: str) -> None:
    """Raises RequestRefused for a WebSocket handshake (426) and for a request that is signed with SigV4 (400)."""
    # A reverse proxy removes `Upgrade` (RFC 9110 section 7.6.1) and leaves the rest of the handshake.
    if "Sec-WebSocket-Key" in headers or ("Upgrade" in headers and "websocket" in headers["Upgrade"].lower()):
        raise RequestRefused(
            "kdproxy does not serve WebSockets (Realtime API, Responses API in WebSocket mode).",
            hint="Nothing was sent to the provider. Use the same API over HTTP: POST /v1/responses, with stream if you "
            "want events. For the Realtime API, point that client at the provider directly.",
            code="websocket_not_served",
            # The only status after which Codex asks over HTTP at once. No `Upgrade` header names another protocol:
            # there is none to upgrade to.
            http_status=426,
        )
    if is_signed(headers, query):
        raise RequestRefused(
            "This request is signed for AWS (SigV4). The signature covers the host, so it is not valid behind a base "
            "URL: AWS would refuse it.",
            hint="Nothing was sent to the provider. Use a Bedrock API key (AWS_BEARER_TOKEN_BEDROCK), which is a "
            "bearer token, or start the client without the proxy's URL.",
            code="signed_request",
            http_status=400,
        )


def is_signed(headers: Headers, query: str) -> bool:
    """Whether a request is signed with AWS's SigV4, in its headers or its query."""
    if headers.get("Authorization", "")[:5].lower() == _SIGNED:
        return True
    return bool(query) and "x-amz-signature=" in query.lower()
