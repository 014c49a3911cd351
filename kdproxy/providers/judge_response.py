"""Judges answers of OpenAI's Responses API. Pure.

The proof is the `status` of the response, in JSON and in the terminal event: completed, or incomplete for a known
reason (API reference, read 2026-11). `response.completed` alone proves nothing. Clients read on after it, so text
behind it, or another response, rejects the answer.
"""

from typing import Any

from kdproxy.core.models import Usage
from kdproxy.core.sse import Piece
from kdproxy.providers.answer import bad_status, members_of
from kdproxy.providers.base import (
    CARRIES_ERROR,
    ONE_ANSWER,
    SECOND_ANSWER,
    Broken,
    Complete,
    Criteria,
    End,
    Judgement,
    answer_object,
    is_done,
)
from kdproxy.providers.ending import RESPONSES, Ending, ending_of, error_in, says
from kdproxy.providers.event import is_bare_error, members_of_event
from kdproxy.providers.judge_rows import EMPTY
from kdproxy.providers.tally import SETTING_END
from kdproxy.providers.usage import read_openai


def judge_response(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge a whole JSON answer."""
    members = members_of(body)
    if isinstance(members, Broken):
        return members
    return _judged(members, criteria, has_said=False)


def judge_compaction(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge a compacted conversation: its object names it, and its output holds items."""
    members = members_of(body)
    if isinstance(members, Broken):
        return members
    output, identity = members.get("output"), members.get("id")
    if members.get("object") != "response.compaction" or not isinstance(output, list) or not output:
        return Broken("it is not a compacted conversation")
    return Complete(usage=read_openai(members), response_id=identity if isinstance(identity, str) else None)


def _judged(response: dict[str, Any], criteria: Criteria, *, has_said: bool) -> Judgement:
    details = response.get("incomplete_details")
    reason = details.get("reason") if isinstance(details, dict) else None
    unknown, is_refused = None, False
    match response.get("status"):
        case "completed":
            pass
        case "incomplete":
            ending = ending_of(reason, RESPONSES)
            if ending in (Ending.FAILED, Ending.MISSING):
                return Broken(f"it is incomplete for the reason {reason!r:.60}", says_failed=ending is Ending.FAILED)
            unknown = reason if ending is Ending.UNKNOWN else None
            is_refused = ending is Ending.REFUSED
        case None if criteria.end is End.DONE:
            pass
        case None:
            return Broken("it has no status", SETTING_END)
        case status:
            return bad_status(status)
    usage = read_openai(response)
    if not (has_said or is_refused or criteria.keeps_empty or _has_content(response, usage)):
        return EMPTY
    identity = response.get("id")
    word = response.get("status") if reason is None else reason
    return Complete(
        usage=usage,
        response_id=identity if isinstance(identity, str) else None,
        unknown_reason=unknown,
        finish=None if word is None else (str(word)[:60],),
        refusal=str(reason)[:60] if is_refused else None,
    )


def _has_content(response: dict[str, Any], usage: Usage | None) -> bool:
    return says(response.get("output")) or (usage is not None and bool(usage.output_tokens))


class ResponseStream:
    """Judge of a stream of response events."""

    awaits_usage = False  # it comes with the terminal event

    def __init__(self, criteria: Criteria) -> None:
        self._criteria = criteria
        self._has_said = False
        self._final: Judgement | None = None
        self._final_id: Any = None
        self._is_done = False
        self._failure: Broken | None = None

    @property
    def is_over(self) -> bool:
        """Whether the terminal event has come."""
        return self._failure is None and (self._final is not None or self._is_done)

    @property
    def is_settled(self) -> bool:
        """The same: only the terminal event ends it."""
        return self._failure is None and self._final is not None

    def take(self, piece: Piece) -> bool:
        """Take an event."""
        if piece.data and self._failure is None and self._final is None:
            if is_done(piece.data):
                self._is_done = True
            else:
                self._read(piece)
        elif piece.data and self._failure is None and not self._is_done:
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
        name = members.get("type")
        kind = name if isinstance(name, str) else piece.event
        if piece.event == "error" or kind in _FAILED or error_in(members) is not None:
            self._failure = CARRIES_ERROR
            return
        self._has_said = self._has_said or says(members.get("delta"))
        response = members.get("response")
        if kind in _TERMINAL and isinstance(response, dict):
            self._final = _judged(response, self._criteria, has_said=self._has_said)
            self._final_id = response.get("id")

    def _read_behind(self, piece: Piece) -> None:
        """Read what comes behind the terminal event, up to `[DONE]`."""
        self._is_done = is_done(piece.data)
        members = answer_object(piece.data) or {}
        response = members.get("response")
        identity = response.get("id") if isinstance(response, dict) else None
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


_TERMINAL = frozenset({"response.completed", "response.incomplete", "response.done"})
_FAILED = frozenset({"error", "response.failed", "response.cancelled"})
