"""Judges chat completions and legacy completions of OpenAI's dialect: one rule for JSON and streams. Pure.

A stream needs a finish reason for each choice; `[DONE]` and a clean end alone prove nothing. JSON whose choices have an
empty finish reason is rejected. If no choice has the member, complete JSON is the proof, and the judgement says so
(`no-finish-reason`). Text with another `id` after a certain end is a second answer, unless it stands behind `[DONE]`.
"""

from typing import Any

from kdproxy.core.sse import Piece
from kdproxy.providers.answer import members_of
from kdproxy.providers.base import (
    CARRIES_ERROR,
    ONE_ANSWER,
    SECOND_ANSWER,
    Broken,
    Complete,
    Criteria,
    Judgement,
    integer,
    is_done,
)
from kdproxy.providers.ending import OPENAI, error_in, is_failure, says
from kdproxy.providers.event import is_bare_error, members_of_event
from kdproxy.providers.tally import Tally
from kdproxy.providers.usage import UsageMeter, read_openai

NO_FINISH_REASON = "no-finish-reason"


def judge_choices(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge a whole JSON answer."""
    members = members_of(body)
    if isinstance(members, Broken):
        return members
    tally = Tally(criteria, OPENAI)
    choices = members.get("choices")
    choices = choices if isinstance(choices, list) else []
    # Choices without an index are numbered by their place.
    has_index = len(choices) > 1 and any(isinstance(choice, dict) and "index" in choice for choice in choices)
    for place, choice in enumerate(choices):
        _note(tally, choice, 0 if has_index else place)
    is_unstated = tally.end_unstated()
    judged = tally.judgement(read_openai(members), is_done=True)
    return judged._replace(note=NO_FINISH_REASON) if is_unstated and isinstance(judged, Complete) else judged


class ChoiceStream:
    """Judge of a stream of chunks."""

    def __init__(self, criteria: Criteria) -> None:
        self._wants_usage = criteria.wants_usage
        self._tally = Tally(criteria, OPENAI)
        self._is_done = False
        self._ended_as: Any = None
        """The `id` of the chunk that ended the answer."""
        self._meter = UsageMeter()

    @property
    def is_over(self) -> bool:
        """Whether `[DONE]` has come."""
        return self._is_done

    @property
    def is_settled(self) -> bool:
        """Whether every choice has certainly ended."""
        return self._tally.is_settled

    @property
    def awaits_usage(self) -> bool:
        """Whether the requested usage has not come yet."""
        return self._wants_usage and self._meter.usage is None

    def take(self, piece: Piece) -> bool:
        """Take a chunk."""
        tally = self._tally
        if piece.bare and is_bare_error(piece):
            tally.failure = CARRIES_ERROR
        if piece.data and tally.failure is None:
            if is_done(piece.data):
                self._is_done = True
            else:
                self._read(piece)
        return self._is_done or tally.is_finished

    def _read(self, piece: Piece) -> None:
        members = members_of_event(piece)
        if members is None:
            return
        if isinstance(members, Broken):
            self._tally.failure = members
            return
        if piece.event == "error" or error_in(members) is not None:
            self._tally.failure = CARRIES_ERROR
            return
        if b"usage" in piece.data or b"service_tier" in piece.data:
            self._meter.take_openai(members)  # a third of an event's cost, and most have no usage
        if self._is_done:
            return  # no client reads what stands behind [DONE]
        choices = members.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            _note(self._tally, choice, 0)
        if self._tally.has_ended:
            self._compare(members)

    def _compare(self, members: dict[str, Any]) -> None:
        """Notice text with another `id` after the end."""
        if self._tally.is_settled:
            self._ended_as = self._ended_as or members.get("id")
        elif self._ended_as and self._tally.has_resumed and members.get("id", self._ended_as) != self._ended_as:
            self._tally.failure = SECOND_ANSWER

    def finish(self) -> Judgement:
        """Judge the stream."""
        return self._tally.judgement(self._meter.usage, is_done=self._is_done)


def _note(tally: Tally, choice: Any, place: int) -> None:
    if not isinstance(choice, dict):
        tally.failure = Broken("a choice is not an object")
        return
    native = choice.get("native_finish_reason")
    if native and is_failure(native):
        tally.failure = Broken(f"a choice ended with {native!r:.60}", says_failed=True)
        return
    index = integer(choice.get("index"))
    tally.note(
        place if index is None else index,
        reason=choice.get("finish_reason"),
        is_stated="finish_reason" in choice,
        has_said=_says(choice),
    )


def _says(choice: dict[str, Any]) -> bool:
    for name in _SAYING:
        member = choice.get(name)
        if member and says(member):
            return True
    return False


_SAYING = ("delta", "message", "text", "prompt_logprobs")
"""Members of a choice that hold content; vLLM's prompt log-probabilities can be requested without any text."""
