"""What a script can ask of the teacher: one frozen class per behaviour of a provider or of the network.

Steps say what happens; `delivery` makes it happen and the dialects give it the provider's own words.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Answer as usual: holds a place in a script."""


@dataclass(frozen=True, slots=True)
class Respond:
    """Answer with exactly this status, these headers and these bytes."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimited:
    """Answer 429 in the provider's shape; a number is sent as seconds, a string (an HTTP date) as it is."""

    retry_after: float | str | None = None
    retry_after_ms: int | None = None
    per_day: bool = False
    """Name a daily quota as the exhausted one, where the provider names quotas (Gemini)."""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerError:
    """Answer a 5xx (or 408, 409) in the provider's own shape."""

    status: int = 500
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Overloaded:
    """Report no capacity: 529 at Anthropic, 503 elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InsufficientQuota:
    """Report a spent credit balance, which waiting does not restore."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Reset the TCP connection before any byte of the answer."""


@dataclass(frozen=True, slots=True)
class CutStream:
    """Close the TCP connection cleanly after so many events, without the chunked body's end."""

    after_events: int = 2


@dataclass(frozen=True, slots=True)
class CutBody:
    """Promise the whole body by Content-Length, send this many bytes of it, close cleanly."""

    at_bytes: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class EndWithoutTerminator:
    """End the stream properly after its finish reason, but without `[DONE]` or the provider's last event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EndTooEarly:
    """End the stream properly as HTTP sees it, before any finish reason."""


@dataclass(frozen=True, slots=True)
class ErrorEvent:
    """Break a 200 stream with the provider's error event after so many events, then end it cleanly."""

    after_events: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HtmlPage:
    """Answer 200 with an HTML page, as captive portals and some gateways do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorIn200:
    """Answer 200 with the provider's error as body (seen at OpenRouter and gateways)."""


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Send so many `: keep-alive` comments (blank lines before JSON) before the answer, as DeepSeek does."""

    comments: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Gzip:
    """Compress the answer whatever the client accepts."""


@dataclass(frozen=True, slots=True)
class Slow:
    """Wait before each event."""

    seconds_per_event: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Hang:
    """Send nothing until `teacher.release()`, then answer as usual."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldAfter:
    """Send the head and so many events, wait for the gate, send the rest."""

    events: int
    gate: asyncio.Event


@dataclass(frozen=True, slots=True)
class Redirect:
    """Answer with a redirect."""

    location: str
    status: int = 307


Step = (
    Answer
    | Respond
    | RateLimited
    | ServerError
    | Overloaded
    | InsufficientQuota
    | Reset
    | CutStream
    | CutBody
    | EndWithoutTerminator
    | EndTooEarly
    | ErrorEvent
    | HtmlPage
    | ErrorIn200
    | KeepAlive
    | Gzip
    | Slow
    | Hang
    | HoldAfter
    | Redirect
)
