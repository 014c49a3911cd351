"""Tracks the choices of one answer, whole or in chunks: which have come, their content, how they ended. Pure.

An answer is whole if every requested choice has a finish reason that proves its end (providers/ending.py), after the
last of its text. An answer without generated tokens and without content is empty, and not stored by default.
"""

from collections.abc import Mapping
from typing import Any

from kdproxy.core.models import Usage
from kdproxy.providers.base import Broken, Complete, Criteria, End, Judgement
from kdproxy.providers.ending import Ending, ending_of

SETTING_END = 'end = "done"'
SETTING_CHOICES = 'choices = "as-served"'
SETTING_EMPTY = "keep_empty = true"


class _Choice:
    __slots__ = ("ending", "events", "has_said", "is_ended", "was_ended_at_once", "word")

    def __init__(self) -> None:
        self.events = 0
        self.has_said = False
        self.is_ended = False
        """Whether a finish reason came with the last text, or after it."""
        self.was_ended_at_once = False
        self.ending: Ending | None = None
        self.word: str | None = None
        """Its last finish reason, as it came."""


class Tally:
    """The choices of one answer."""

    def __init__(self, criteria: Criteria, words: Mapping[str, Ending]) -> None:
        self._criteria = criteria
        self._words = words
        self._choices: dict[int, _Choice] = {}
        self._unknown: str | None = None
        self._has_refused = False
        self.has_ended = False
        """Whether any choice has had a finish reason."""
        self.failure: Broken | None = None
        """The proof that the answer failed, if any."""
        self.is_stated = False
        """Whether any choice has the finish reason's member, even if empty."""
        self.has_resumed = False
        """Whether text followed a finish reason: then a finish reason does not prove that the stream is over."""

    def note(self, index: int, *, reason: Any, is_stated: bool, has_said: bool) -> None:
        """Take the part of an event, or of a whole body, about one choice."""
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
        choice.events += 1
        if has_said:
            choice.has_said = True
            if choice.is_ended:
                choice.is_ended = False
                self.has_resumed = True
        if is_stated:
            self.is_stated = True
            if reason is not None:
                self._end(choice, reason)

    def _end(self, choice: _Choice, reason: Any) -> None:
        ending = ending_of(reason, self._words)
        match ending:
            case Ending.MISSING:
                return
            case Ending.FAILED:
                self.failure = Broken(f"a choice ended with {reason!r:.60}", says_failed=True)
                return
            case Ending.UNKNOWN:
                self._unknown = str(reason)[:60]
            case Ending.REFUSED:
                self._has_refused = True
        self.has_ended = choice.is_ended = True
        choice.ending = ending
        choice.word = str(reason)[:60]
        choice.was_ended_at_once = choice.events == 1

    @property
    def has_choices(self) -> bool:
        """Whether any choice has come."""
        return bool(self._choices)

    def end_unstated(self) -> bool:
        """For complete JSON: if no choice has the member, treat all as ended and return True."""
        if self.is_stated or self.failure is not None:
            return False
        for choice in self._choices.values():
            choice.is_ended, choice.ending = True, Ending.ENDED
        return bool(self._choices)

    @property
    def is_finished(self) -> bool:
        """Whether everything requested has ended, as far as is known."""
        if not self.has_ended or self.has_resumed or self.failure is not None:
            return False  # runs after each event; true only for the last ones
        expected = self._criteria.choices
        return (expected is None or len(self._choices) >= expected) and all(
            choice.is_ended for choice in self._choices.values()
        )

    @property
    def is_settled(self) -> bool:
        """Whether a stall from here on proves the end. It does not if more choices may come, or if the first event of a
        choice already has a finish reason (some servers put one into every event)."""
        return (
            self._criteria.choices is not None
            and self.is_finished
            and not any(choice.was_ended_at_once for choice in self._choices.values())
        )

    def judgement(self, usage: Usage | None, *, is_done: bool) -> Judgement:
        """Judge whether the answer is whole.

        Args:
            is_done: the dialect's last event has come, or the body is complete JSON.
        """
        if self.failure is not None:
            return self.failure
        if not self._choices:
            return Broken("it has no choices")
        unfinished = self._unfinished(is_done=is_done)
        if unfinished is not None:
            return unfinished
        expected = self._criteria.choices
        if expected is not None and (len(self._choices) != expected or max(self._choices) >= expected):
            return Broken(f"{expected} choices were requested, but {len(self._choices)} came", SETTING_CHOICES)
        if not self._criteria.keeps_empty and self._is_empty(usage):
            return Broken("it is empty: no tokens were generated and it has no content", SETTING_EMPTY, is_empty=True)
        # No generators below: this runs for each answer, and one costs more than all else it does.
        ended = [self._choices[index] for index in sorted(self._choices)]
        refused = [choice.word for choice in ended if choice.ending is Ending.REFUSED] if self._has_refused else ()
        return Complete(
            usage=usage,
            unknown_reason=self._unknown,
            finish=tuple([choice.word for choice in ended]) if self.has_ended else None,
            refusal=refused[0] if refused else None,
        )

    def _unfinished(self, *, is_done: bool) -> Broken | None:
        choices = self._choices.values()
        for choice in choices:
            if not choice.is_ended:
                break
        else:
            return None
        if is_done and all(choice.ending is not None for choice in choices):
            return None  # text came after a finish reason, and then the last event
        if is_done and self._criteria.end is End.DONE:
            return None
        if is_done and not any(choice.ending is not None for choice in choices):
            return Broken("it has no finish reason", SETTING_END)
        return Broken("it was cut: a choice has no finish reason")

    def _is_empty(self, usage: Usage | None) -> bool:
        silent = [
            choice for choice in self._choices.values() if not choice.has_said and choice.ending is not Ending.REFUSED
        ]
        if not silent:
            return False
        has_generated = usage is not None and bool(usage.output_tokens)
        # If other choices have content, the generated tokens are theirs.
        return not has_generated or len(silent) < len(self._choices)
