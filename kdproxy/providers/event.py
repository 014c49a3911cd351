"""Classifies an event of a stream, in any dialect: an opening, a heartbeat, an error outside a field. Pure.

Streams begin with events that hold no token: a role, a created response, pings. An error after them is still an error
before the first token.
"""

from typing import Any

from kdproxy.core.sse import Piece
from kdproxy.providers.base import NO_JSON_EVENT, Broken, answer_object
from kdproxy.providers.ending import error_in, says

_OPENING_TYPES = frozenset(
    {
        *("message_start", "ping", "keepalive", "heartbeat", "response.keep_alive", "response.keepalive"),
        *("response.created", "response.in_progress", "response.queued"),
    }
)
_OPENING_DELTAS = frozenset({"content_block_start", "response.output_item.added", "response.content_part.added"})
"""Events that announce later content; a tool call's name comes here."""


def is_opening(piece: Piece) -> bool:
    """Whether an event holds neither a token nor an end."""
    return opens(piece, answer_object(piece.data))


def opens(piece: Piece, members: dict[str, Any] | None) -> bool:
    """Return `is_opening` of an event that has been parsed; `members` None: it is not a JSON object."""
    if members is None:
        # Not a JSON object: a heartbeat, or invalid data that the judge will reject.
        return is_heartbeat(piece)
    name = members.get("type")
    kind = name if isinstance(name, str) else piece.event
    if kind in _OPENING_TYPES:
        return True
    choices = members.get("choices")
    if isinstance(choices, list):
        return bool(choices) and not any(_has_begun(choice) for choice in choices) and not members.get("usage")
    return kind in _OPENING_DELTAS and not _names_a_tool(members)


def _has_begun(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return True
    return bool(choice.get("finish_reason")) or says([choice.get("delta"), choice.get("text"), choice.get("message")])


def _names_a_tool(members: dict[str, Any]) -> bool:
    holder = members.get("content_block", members.get("item"))
    return isinstance(holder, dict) and bool(holder.get("name"))


_HEARTBEATS = frozenset(
    {b"", b'""', b"null", b"{}", b"[]", b"ping", b"pong", b"heartbeat", b"keepalive", b"keep-alive"}
)
_HEARTBEAT_EVENTS = frozenset({"ping", "heartbeat", "keepalive", "keep-alive", "keep_alive"})


def is_heartbeat(piece: Piece) -> bool:
    """Whether an event is only a keep-alive: nothing in it can change an answer."""
    return piece.data.strip().lower() in _HEARTBEATS or (piece.event or "").lower() in _HEARTBEAT_EVENTS


def is_bare_error(piece: Piece) -> bool:
    """Whether a piece has an error as a JSON line outside the event's fields."""
    members = answer_object(piece.bare) if piece.bare else None
    return members is not None and error_in(members) is not None


def members_of_event(piece: Piece) -> dict[str, Any] | Broken | None:
    """Read the members of an event as a judge needs them; None: a heartbeat, which says nothing."""
    members = answer_object(piece.data)
    if members is not None:
        return members
    return None if is_heartbeat(piece) else NO_JSON_EVENT
