"""Modes, and a request's own cache directives. docs/modes.md is the user's page.

The request directives of RFC 9111 section 5.2.1 that apply here are honoured; the rest are ignored.
"""

from enum import StrEnum

from kdproxy.core.header import combined
from kdproxy.core.models import Headers
from kdproxy.errors import RequestRefused

MODE_HEADER = "Kdproxy-Mode"
RUN_HEADER = "Kdproxy-Run"
"""Header that names a request's run: runs that wait for the same limit take turns."""


class Mode(StrEnum):
    """What the proxy does with a cacheable request."""

    CACHE = "cache"
    """Answer from the store; buy and store what is missing."""
    REPLAY = "replay"
    """Answer from the store only; else 504."""
    REFRESH = "refresh"
    """Buy, store, supersede."""
    RECORD = "record"
    """Buy; store the answer only if the store has none."""
    BYPASS = "bypass"
    """Neither read nor store."""

    @property
    def reads(self) -> bool:
        """Whether a stored answer may be served."""
        return self in (Mode.CACHE, Mode.REPLAY)

    @property
    def buys(self) -> bool:
        """Whether the upstream may be asked."""
        return self is not Mode.REPLAY

    @property
    def stores(self) -> bool:
        """Whether a bought answer is kept."""
        return self in (Mode.CACHE, Mode.REFRESH, Mode.RECORD)


_DIRECTIVES = {
    # Of several directives the strictest wins: never spend against only-if-cached, never store against no-store.
    "only-if-cached": Mode.REPLAY,
    "no-store": Mode.BYPASS,
    "no-cache": Mode.REFRESH,
}


def mode_of(headers: Headers, default: Mode) -> Mode:
    """Return the mode of one request: its own header, else its Cache-Control, else the default.

    A proxy in replay mode stays in it: a client cannot make it spend money.

    Raises:
        RequestRefused: the header's value is not a mode.
    """
    asked = headers.get(MODE_HEADER)
    if asked is not None:
        try:
            mode = Mode(asked.strip().lower())
        except ValueError as error:
            raise RequestRefused(
                f"{MODE_HEADER} names an unknown mode.",
                hint=f"Nothing was sent to the provider. Use one of: {', '.join(Mode)}.",
                code="unknown_mode",
            ) from error
    else:
        mode = _mode_of_cache_control(combined(headers, "Cache-Control"), default)
    return Mode.REPLAY if default is Mode.REPLAY else mode


def _mode_of_cache_control(value: str | None, default: Mode) -> Mode:
    if value is None:
        return default
    asked = {directive.strip().lower() for directive in value.split(",")}
    for directive, mode in _DIRECTIVES.items():
        if directive in asked:
            return mode
    return default
