"""Judges answers without finish reasons: one named rule for each kind. Pure.

- rows (embeddings, moderations, images): as many as requested, each index once, none empty;
- vectors: also of one dimension;
- counts: the count is a number;
- texts (transcripts): there is some text, and no error;
- sound: there are bytes, and they are neither JSON nor a web page;
- streams of these: one terminal event of the dialect for each requested answer, and no error.
"""

from collections.abc import Callable
from typing import Any

from kdproxy.core.models import Usage
from kdproxy.core.sniff import Kind, sniff
from kdproxy.core.sse import Piece
from kdproxy.providers.answer import members_of
from kdproxy.providers.base import (
    CARRIES_ERROR,
    ONE_ANSWER,
    SECOND_ANSWER,
    Broken,
    Complete,
    Criteria,
    Judge,
    Judgement,
    StreamJudge,
    answer_object,
    is_done,
)
from kdproxy.providers.ending import error_in, says
from kdproxy.providers.event import is_bare_error, members_of_event
from kdproxy.providers.tally import SETTING_CHOICES, SETTING_EMPTY
from kdproxy.providers.usage import read_openai
from kdproxy.providers.vectors import VECTORS_DIFFER, have_one_dimension, is_zero_text

EMPTY = Broken("it is empty: no tokens were generated and it has no content", SETTING_EMPTY, is_empty=True)


def judge_list(name: str, item: str | None = None, *, holds_vectors: bool = False) -> Judge:
    """Make the judge of an answer that is a list of rows, each with an item (None: the row is the item)."""

    def judge(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
        members = members_of(body)
        if isinstance(members, Broken):
            return members
        rows = members.get(name)
        if not isinstance(rows, list) or not rows:
            return Broken(f"it has no {name}")
        if criteria.choices is not None and not _are_all(rows, criteria.choices):
            return Broken(f"{criteria.choices} rows were requested, but {len(rows)} came", SETTING_CHOICES)
        for row in rows:
            value = row if item is None or not isinstance(row, dict) else row.get(item)
            is_zero = holds_vectors and isinstance(value, str) and is_zero_text(value)
            if not isinstance(row, dict) or not _is_filled(value) or is_zero:
                return Broken(f"a row of {name} is empty, or holds null or zeros instead of numbers")
        if holds_vectors and item is not None and not have_one_dimension(row[item] for row in rows):
            return VECTORS_DIFFER
        return Complete(usage=read_openai(members))

    return judge


def _are_all(rows: list[Any], expected: int) -> bool:
    """Whether as many rows came as were requested, each index once if they have one."""
    indexes = [row.get("index") for row in rows if isinstance(row, dict)]
    has_indexes = all(isinstance(index, int) for index in indexes)
    return len(rows) == expected and (not has_indexes or set(indexes) == set(range(expected)))


def _is_filled(value: Any) -> bool:
    """Whether an item has content: text, vectors without null, an object.

    A vector of zeros has no direction: servers send it if their model produced no vector.
    """
    if isinstance(value, list):
        return _has_no_gap(value) and any(any(part) if isinstance(part, list) else part for part in value)
    return bool(value) and isinstance(value, str | dict)


def _has_no_gap(value: list[Any]) -> bool:
    return bool(value) and all(_has_no_gap(part) if isinstance(part, list) else part is not None for part in value)


def judge_transcript(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge a transcript: JSON, or text, srt and vtt."""
    members = answer_object(body)
    if members is None:
        kind = sniff(body, is_whole=True)
        if kind is Kind.EMPTY:
            return Complete() if criteria.keeps_empty else EMPTY
        return Broken("it is incomplete JSON or a web page") if kind in (Kind.JSON, Kind.HTML) else Complete()
    text = members.get("text")
    if error_in(members) is not None or not isinstance(text, str):
        return Broken("it has no text")
    usage = read_openai(members)
    return Complete(usage=usage) if text or criteria.keeps_empty or _has_generated(usage) else EMPTY


def judge_sound(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
    """Judge sound, whose end only the framing shows."""
    kind = sniff(body, is_whole=True)
    return Complete() if kind is Kind.OTHER else Broken("it is not sound")


def judge_count(name: str) -> Judge:
    """Make the judge of an answer that is a count with this name."""

    def judge(body: bytes, criteria: Criteria = ONE_ANSWER) -> Judgement:
        members = members_of(body)
        if isinstance(members, Broken):
            return members
        value = members.get(name)
        is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        return Complete() if is_count else Broken(f"it has no {name}")

    return judge


def terminal_stream(*complete: str) -> Callable[[Criteria], StreamJudge]:
    """Return a factory of judges for streams that end with an event of one of these types."""
    return lambda criteria: TerminalStream(criteria, frozenset(complete))


class TerminalStream:
    """Judge of a stream whose last event is marked by its type."""

    awaits_usage = False

    def __init__(self, criteria: Criteria, complete: frozenset[str]) -> None:
        self._criteria = criteria
        self._complete = complete
        self._ended = 0
        self._usage: Usage | None = None
        self._has_said = False
        self._failure: Broken | None = None

    @property
    def is_over(self) -> bool:
        """Whether the last event has come."""
        return self._failure is None and self._ended >= (self._criteria.choices or 1)

    @property
    def is_settled(self) -> bool:
        """The same: only the last event ends it."""
        return self.is_over

    def take(self, piece: Piece) -> bool:
        """Take an event."""
        if piece.data and self._failure is None and not is_done(piece.data):
            self._read(piece)
        if piece.bare and is_bare_error(piece):
            self._failure = CARRIES_ERROR
        return self.is_over

    def _read(self, piece: Piece) -> None:
        members = members_of_event(piece)
        if members is None:
            return
        if isinstance(members, Broken):
            self._failure = members
            return
        if piece.event == "error" or error_in(members) is not None:
            self._failure = CARRIES_ERROR
            return
        name = members.get("type")
        kind = name if isinstance(name, str) else piece.event
        # The event's name, numbers and labels are not content.
        has_said = any(says(members.get(member)) for member in _CONTENT)
        if has_said and self.is_over and self._criteria.choices is not None:
            self._failure = SECOND_ANSWER
            return
        self._has_said = self._has_said or has_said
        if kind in self._complete:
            self._ended += 1
            self._usage = read_openai(members) or self._usage

    def finish(self) -> Judgement:
        """Judge by whether the last event came."""
        if self._failure is not None:
            return self._failure
        if not self.is_over:
            return Broken("it was cut: its last event did not come")
        if self._has_said or self._criteria.keeps_empty or _has_generated(self._usage):
            return Complete(usage=self._usage)
        return EMPTY


_CONTENT = ("text", "delta", "b64_json", "audio")


def _has_generated(usage: Usage | None) -> bool:
    return usage is not None and bool(usage.output_tokens)
