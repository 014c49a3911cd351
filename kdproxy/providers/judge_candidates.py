"""Judges Gemini's answers: generateContent, and its streams as events or as one JSON array. Pure.

`finishReason` may be in every chunk, or come before any text: only the last event's counts, and only with a clean end
(Gemini API reference v1beta, read 2026-11). A blocked prompt is a whole answer: a retry would be blocked again. Content
with another `responseId` after a certain end is a second answer.
"""

from typing import Any

from kdproxy.core.sse import Piece
from kdproxy.providers.base import (
    CARRIES_ERROR,
    ONE_ANSWER,
    SECOND_ANSWER,
    Broken,
    Complete,
    Criteria,
    Judgement,
    answer_object,
    integer,
    is_done,
)
from kdproxy.providers.ending import GEMINI, error_in, says
from kdproxy.providers.event import is_bare_error, members_of_event
from kdproxy.providers.tally import Tally
from kdproxy.providers.usage import UsageMeter


def judge_candidates(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge a whole JSON answer, or an array of chunks (streamGenerateContent without alt=sse)."""
    stream = CandidateStream(criteria)
    text = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] == b"[":
        wrapped = answer_object(b'{"chunks":' + text + b"}")
        chunks = None if wrapped is None else wrapped.get("chunks")
    else:
        members = answer_object(body)
        chunks = None if members is None else [members]
    if not isinstance(chunks, list) or not chunks:
        return Broken("it is not a JSON object")
    for chunk in chunks:
        stream.read(chunk)
    return stream.finish()


class CandidateStream:
    """Judge of a stream of GenerateContentResponses."""

    is_over = False  # no event is marked as the last one
    is_settled = False
    awaits_usage = False

    def __init__(self, criteria: Criteria) -> None:
        self._tally = Tally(criteria, GEMINI)
        self._meter = UsageMeter()
        self._is_blocked = False
        self._ended_as: Any = None
        """The `responseId` of the chunk that ended the answer."""
        self._block_reason: str | None = None

    def take(self, piece: Piece) -> bool:
        """Take an event."""
        if piece.data and self._tally.failure is None and not is_done(piece.data):
            members = members_of_event(piece)
            if isinstance(members, Broken):
                self._tally.failure = members
            elif members is not None:
                self.read(members)
        if piece.bare and is_bare_error(piece):
            self._tally.failure = CARRIES_ERROR
        return self._is_blocked or self._tally.is_finished

    def read(self, members: Any) -> None:
        """Take one GenerateContentResponse."""
        if not isinstance(members, dict) or error_in(members) is not None:
            self._tally.failure = CARRIES_ERROR
            return
        self._meter.take_gemini(members.get("usageMetadata"))
        feedback = members.get("promptFeedback")
        blocked = feedback.get("blockReason") if isinstance(feedback, dict) else None
        if isinstance(blocked, str) and blocked and not blocked.endswith("UNSPECIFIED"):
            self._is_blocked = True
            self._block_reason = blocked[:60]
        candidates = members.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            if not isinstance(candidate, dict):
                self._tally.failure = Broken("a candidate is not an object")
                return
            self._tally.note(
                integer(candidate.get("index")) or 0,
                reason=candidate.get("finishReason"),
                is_stated="finishReason" in candidate,
                has_said=says(candidate.get("content")),
            )
            if self._ended_as and says(candidate.get("content")) and self._is_of_another(members):
                self._tally.failure = SECOND_ANSWER
        if self._ended_as is None and self._tally.is_settled:
            self._ended_as = members.get("responseId")

    def _is_of_another(self, members: dict[str, Any]) -> bool:
        return bool(members.get("responseId", self._ended_as) != self._ended_as)

    def finish(self) -> Judgement:
        """Judge the stream."""
        usage = self._meter.usage
        if self._is_blocked and not self._tally.has_choices and self._tally.failure is None:
            return Complete(usage=usage, refusal=self._block_reason)
        # A clean end proves nothing if the last chunk has no finishReason.
        return self._tally.judgement(usage, is_done=False)
