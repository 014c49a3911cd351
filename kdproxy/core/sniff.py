"""Detects the kind of a body from its first bytes, since content types are often wrong. Pure.

Servers send events as `application/json`, JSON as `text/plain` or `text/event-stream`, and CDNs send error pages with
status 200.
"""

import re
from enum import Enum, auto


class Kind(Enum):
    """The kind of a body, by its first bytes."""

    EMPTY = auto()
    """Empty, or white space only."""
    JSON = auto()
    EVENTS = auto()
    """Server-sent events."""
    HTML = auto()
    OTHER = auto()


BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_EVENT_FIELD = re.compile(rb":|(?:data|event|id|retry)[:\r\n]")
_EVENT_FIELDS = (b"data", b"event", b"retry", b"id")
_HTML = re.compile(rb"<(?:!doctype\s+html|html|head|body|title|!--)", re.IGNORECASE)
_DECIDED_BYTES = 32
"""Longer than any prefix that is checked."""


def sniff(start: bytes, *, is_whole: bool = False) -> Kind | None:
    """Return the kind of a body by its first bytes; None: more bytes are needed.

    Args:
        is_whole: no more bytes follow.
    """
    text = start.removeprefix(BYTE_ORDER_MARK).lstrip(b" \t\r\n")
    if not text or (not is_whole and BYTE_ORDER_MARK.startswith(text)):
        return Kind.EMPTY if is_whole else None
    if text[0] in b"{[":
        return Kind.JSON
    if _EVENT_FIELD.match(text):
        return Kind.EVENTS
    is_page_perhaps = text[:1] == b"<" and len(text) < _DECIDED_BYTES
    if not is_whole and (is_page_perhaps or any(field.startswith(text) for field in _EVENT_FIELDS)):
        return None
    return Kind.HTML if _HTML.match(text) else Kind.OTHER


def is_html(body: bytes) -> bool:
    """Whether a body is a web page."""
    return sniff(body[:256], is_whole=True) is Kind.HTML
