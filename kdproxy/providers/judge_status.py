"""Judges streams whose terminal event holds the whole answer with its `status`. Pure.

Clients read on after the terminal event, so text behind it, or another answer, rejects the stream.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from kdproxy.core.sse import Piece
from kdproxy.providers.base import (
    CARRIES_ERROR,
    SECOND_ANSWER,
    Broken,
    Complete,
    Criteria,
    End,
    Judgement,
    StreamJudge,
    answer_object,
    is_done,
)
from kdproxy.providers.ending import error_in, says
from kdproxy.providers.event import is_bare_error, members_of_event


class StatusEvents(NamedTuple):
    """How a dialect names its events."""

    type_member: str
    """Holds an event's type; without it the SSE field `event` does."""
    answer_member: str
    """Holds the answer in the terminal event."""
    terminal: frozenset[str]
    failed: frozenset[str]
    judge: Callable[[dict[str, Any], Criteria, bool], Judgement]
    """Judges the answer; the last argument says whether text came before."""
    ends_with_done: bool = False
    """Whether `[DONE]` ends the stream."""


def status_stream(events: StatusEvents) -> Callable[[Criteria], StreamJudge]:
    """Return a factory of judges for such streams."""
    return lambda criteria: StatusStream(criteria, events)


class StatusStream:
    """Judge of one such stream."""

    awaits_usage = False  # it comes with the terminal event

    def __init__(self, criteria: Criteria, events: StatusEvents) -> None:
        self._criteria = criteria
        self._events = events
        self._has_said = False
        self._final: Judgement | None = None
        self._final_id: Any = None
        self._is_done = False
        self._failure: Broken | None = None

    @property
    def is_over(self) -> bool:
        """Whether the terminal event has come, or `[DONE]`."""
        return self._failure is None and (self._final is not None or self._is_done)

    @property
    def is_settled(self) -> bool:
        """Whether the terminal event has come."""
        return self._failure is None and self._final is not None

    def take(self, piece: Piece) -> bool:
        """Take an event."""
        if piece.data and self._failure is None:
            ends = self._events.ends_with_done and is_done(piece.data)
            if self._final is None:
                self._is_done = self._is_done or ends
                if not is_done(piece.data):
                    self._read(piece)
            elif not self._is_done:
                self._is_done = ends
                self._read_behind(piece)
        if piece.bare and self._final is None and is_bare_error(piece):
            self._failure = CARRIES_ERROR
        return self.is_over

    def _read(self, piece: Piece) -> None:
        members = members_of_event(piece)
        if members is None:
            return
        if isinstance(members, Broken):
            self._failure = members
            return
        name = members.get(self._events.type_member)
        kind = name if isinstance(name, str) else piece.event
        if piece.event == "error" or kind in self._events.failed or error_in(members) is not None:
            self._failure = CARRIES_ERROR
            return
        self._has_said = self._has_said or says(members.get("delta"))
        answer = members.get(self._events.answer_member)
        if kind in self._events.terminal and isinstance(answer, dict):
            self._final = self._events.judge(answer, self._criteria, self._has_said)
            self._final_id = answer.get("id")

    def _read_behind(self, piece: Piece) -> None:
        """Read what comes behind the terminal event."""
        members = answer_object(piece.data) or {}
        answer = members.get(self._events.answer_member)
        identity = answer.get("id") if isinstance(answer, dict) else None
        if says(members.get("delta")) or (identity and identity != self._final_id):
            self._failure = SECOND_ANSWER

    def finish(self) -> Judgement:
        """Judge by the status in the terminal event."""
        if self._failure is not None:
            return self._failure
        if self._final is not None:
            return self._final
        if self._is_done and self._criteria.end is End.DONE and self._has_said:
            return Complete()
        return Broken("it was cut: its terminal event did not come")
