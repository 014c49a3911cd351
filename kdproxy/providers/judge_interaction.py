"""Judges answers of Gemini's Interactions API (google-genai 3.6.1, types.interactions, read 2026-11-30). Pure.

The proof is the `status` of the interaction, in JSON and in the terminal event: completed, or a status that asks the
client to act. Clients read on after it, so text behind it, or another interaction, rejects the answer.
"""

from typing import Any

from kdproxy.core.sse import Piece
from kdproxy.providers.answer import bad_status, members_of
from kdproxy.providers.base import (
    CARRIES_ERROR,
    ONE_ANSWER,
    SECOND_ANSWER,
    Broken,
    Complete,
    Criteria,
    Judgement,
    answer_object,
    is_done,
)
from kdproxy.providers.ending import error_in, says
from kdproxy.providers.event import is_bare_error, members_of_event
from kdproxy.providers.judge_rows import EMPTY
from kdproxy.providers.usage import read_interaction

_WHOLE = frozenset({"completed", "requires_action"})
_TERMINAL = frozenset({"interaction.completed", "interaction.complete"})


def judge_interaction(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge a whole JSON answer."""
    members = members_of(body)
    if isinstance(members, Broken):
        return members
    return _judged(members, criteria, has_said=False)


def _judged(interaction: dict[str, Any], criteria: Criteria, *, has_said: bool) -> Judgement:
    status = interaction.get("status")
    if not isinstance(status, str) or status not in _WHOLE:
        return bad_status(status)
    usage = read_interaction(interaction)
    has_said = has_said or says(interaction.get("steps")) or says(interaction.get("outputs"))
    if not (has_said or criteria.keeps_empty or (usage is not None and usage.output_tokens)):
        return EMPTY
    return Complete(usage=usage, finish=(status,))


class InteractionStream:
    """Judge of a stream of interaction events."""

    awaits_usage = False  # it comes with the terminal event

    def __init__(self, criteria: Criteria) -> None:
        self._criteria = criteria
        self._has_said = False
        self._final: Judgement | None = None
        self._final_id: Any = None
        self._failure: Broken | None = None

    @property
    def is_over(self) -> bool:
        """Whether the terminal event has come."""
        return self._failure is None and self._final is not None

    @property
    def is_settled(self) -> bool:
        """The same: only the terminal event ends it."""
        return self.is_over

    def take(self, piece: Piece) -> bool:
        """Take an event."""
        if piece.data and self._failure is None and self._final is None and not is_done(piece.data):
            self._read(piece)
        elif piece.data and self._final is not None:
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
        name = members.get("event_type")
        kind = name if isinstance(name, str) else piece.event
        if kind == "error" or error_in(members) is not None:
            self._failure = CARRIES_ERROR
            return
        self._has_said = self._has_said or says(members.get("delta"))
        interaction = members.get("interaction")
        if kind in _TERMINAL and isinstance(interaction, dict):
            self._final = _judged(interaction, self._criteria, has_said=self._has_said)
            self._final_id = interaction.get("id")

    def _read_behind(self, piece: Piece) -> None:
        members = answer_object(piece.data) or {}
        interaction = members.get("interaction")
        identity = interaction.get("id") if isinstance(interaction, dict) else None
        if says(members.get("delta")) or (identity and identity != self._final_id):
            self._failure = SECOND_ANSWER

    def finish(self) -> Judgement:
        """Judge by the status in the terminal event."""
        if self._failure is not None:
            return self._failure
        return self._final or Broken("it was cut: its terminal event did not come")
