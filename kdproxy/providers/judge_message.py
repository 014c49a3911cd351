"""Judges Anthropic's messages. Pure.

The proof is the `stop_reason`: `message_stop` alone proves nothing. The API always sends the member, so JSON without it
is rejected (API reference, messages and streaming, read 2026-11). An `error` event may come inside a 200. Clients read
on after `message_stop`, so content behind it, or a second message, rejects the answer.
"""

from typing import Any

from kdproxy.core.sse import Piece
from kdproxy.providers.answer import members_of
from kdproxy.providers.base import (
    CARRIES_ERROR,
    ONE_ANSWER,
    SECOND_ANSWER,
    Broken,
    Criteria,
    Judgement,
    is_done,
)
from kdproxy.providers.ending import ANTHROPIC, error_in, says
from kdproxy.providers.event import is_bare_error, members_of_event
from kdproxy.providers.tally import Tally
from kdproxy.providers.usage import UsageMeter, read_anthropic


def judge_message(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge a whole JSON answer."""
    members = members_of(body)
    if isinstance(members, Broken):
        return members
    if members.get("type") != "message":
        return Broken("it is not a message")
    tally = Tally(criteria, ANTHROPIC)
    tally.note(0, reason=members.get("stop_reason"), is_stated=True, has_said=says(members.get("content")))
    return tally.judgement(read_anthropic(members.get("usage")), is_done=True)


class MessageStream:
    """Judge of a message stream."""

    awaits_usage = False  # its last counts come with the stop_reason

    def __init__(self, criteria: Criteria) -> None:
        self._tally = Tally(criteria, ANTHROPIC)
        self._meter = UsageMeter()
        self._has_started = self._has_said = self._is_stopped = False

    @property
    def is_over(self) -> bool:
        """Whether `message_stop` has come."""
        return self._is_stopped

    @property
    def is_settled(self) -> bool:
        """Whether the stop_reason has come."""
        return self._tally.is_settled

    def take(self, piece: Piece) -> bool:
        """Take an event."""
        if piece.data and self._tally.failure is None and not is_done(piece.data):
            members = members_of_event(piece)
            if isinstance(members, Broken):
                self._tally.failure = members
            elif members is not None:
                self._read(members, piece)
        if piece.bare and is_bare_error(piece):
            self._tally.failure = CARRIES_ERROR
        return self._is_stopped or self._tally.is_finished

    def _read(self, members: dict[str, Any], piece: Piece) -> None:
        if error_in(members) is not None or piece.event == "error":
            self._tally.failure = CARRIES_ERROR
            return
        if self._is_stopped:
            self._read_behind(members)
            return
        match members.get("type"):
            case "message_start":
                if self._has_said:
                    self._tally.failure = SECOND_ANSWER
                self._has_started = True
                message = members.get("message")
                self._meter.take_anthropic(message.get("usage") if isinstance(message, dict) else None)
                self._note()
            case "content_block_start":
                self._note(has_said=says(members.get("content_block")))
            case "content_block_delta":
                self._note(has_said=says(members.get("delta")))
            case "message_delta":
                self._meter.take_anthropic(members.get("usage"))
                delta = members.get("delta")
                self._note(reason=delta.get("stop_reason") if isinstance(delta, dict) else None, is_stated=True)
            case "message_stop":
                self._is_stopped = True

    def _read_behind(self, members: dict[str, Any]) -> None:
        kind = members.get("type")
        holder = members.get("content_block" if kind == "content_block_start" else "delta")
        if kind == "message_start" or (kind in _CONTENT and says(holder)):
            self._tally.failure = SECOND_ANSWER

    def _note(self, *, reason: Any = None, is_stated: bool = False, has_said: bool = False) -> None:
        self._has_said = self._has_said or has_said
        self._tally.note(0, reason=reason, is_stated=is_stated, has_said=has_said)

    def finish(self) -> Judgement:
        """Judge the stream."""
        if self._tally.failure is None and not self._has_started:
            return Broken("it has no message_start")
        return self._tally.judgement(self._meter.usage, is_done=self._is_stopped)


_CONTENT = frozenset({"content_block_start", "content_block_delta"})
