"""What a body is, told by its first bytes, since content types are wrong too often. Pure.

Servers send events as `application/json`, JSON as `text/plain` or `text/event-stream`, and a CDN's error page under a
status of 200.
"""

import re
from enum import Enum, auto


class Kind(Enum):
    """What a body looks like."""

    EMPTY = auto()
    """Nothing, or nothing but blank space."""
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
"""More than any beginning that is looked for."""


def sniff(start: bytes, *, is_whole: bool = False) -> Kind | None:
    """Say what a body is by its first bytes; None: more of them are needed.

    Args:
        is_whole: nothing follows.
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
    """Whether a body is a page for people."""
    return sniff(body[:256], is_whole=True) is Kind.HTML
