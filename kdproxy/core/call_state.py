"""Totals of a data directory's calls: how many were sent, how they ended, which were in flight at a kill, and which
questions failed. Pure; computed from events and answer lines, and kept in the index.

For each call, an answer line takes precedence over `ended`, and `ended` over `sent`. A `sent` line without an end, from
a process that no longer runs, was in flight when that process was killed: it may have been billed, and counts as a
failed call of its question.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kdproxy.core.call_event import Ended, Sent
from kdproxy.core.models import Address, LineName
from kdproxy.core.record import name_from
from kdproxy.core.retry_history import LIFETIME_SECONDS, MOST_QUESTIONS

MOST_KILLED = 1_000
"""Number of calls in flight at a kill that are kept individually; all are counted."""
KILLED = "The process was killed while the call was in flight."
_REASON_CHARACTERS = 200


class FailedQuestion(NamedTuple):
    """A question whose calls since its last answer may have been billed and brought no answer."""

    calls: int
    failed_at: float
    """UTC Unix seconds."""
    reason: str


@dataclass(slots=True)
class CallState:
    """The calls of one directory. Each event is counted once."""

    sent: int = 0
    kept: int = 0
    """Calls whose answer line is in the journal."""
    unreadable: int = 0
    """Lines that were damaged or torn."""
    killed: int = 0
    """Calls in flight when a process was killed."""
    killed_free: int = 0
    """Those of them that cost nothing."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """`ended` lines by outcome."""
    billed: Counter[str] = field(default_factory=Counter)
    """`ended` lines by whether they were billed."""
    open: dict[LineName, Sent] = field(default_factory=dict)
    killed_calls: OrderedDict[LineName, Sent] = field(default_factory=OrderedDict)
    """The latest of them."""
    failed_questions: OrderedDict[Address, FailedQuestion] = field(default_factory=OrderedDict)
    """By question, least recently used first."""

    def take_sent(self, name: LineName, sent: Sent) -> None:
        """Count a call that is sent."""
        self.sent += 1
        self.open[name] = sent

    def take_ended(self, ended: Ended) -> None:
        """Count a call that has ended without an answer line."""
        sent = self._close(ended.call)
        self.outcomes[ended.outcome] += 1
        self.billed[ended.billed] += 1
        if sent is None or sent.question is None:
            return
        if ended.outcome == "answered":
            self.failed_questions.pop(sent.question, None)
        elif ended.outcome == "maybe_billed" and ended.billed == "maybe":
            self._fail(sent.question, ended.ended_at, ended.reason or "")

    def take_answer(self, call: LineName) -> None:
        """Count a call whose answer is in the journal."""
        sent = self._close(call)
        if sent is not None:
            self.kept += 1
            if sent.question is not None:
                self.failed_questions.pop(sent.question, None)

    def end_lives(self) -> None:
        """Count open calls as killed: no process writes now, so they were in flight at a kill."""
        for name, sent in self.open.items():
            self.killed += 1
            self.killed_free += sent.is_free
            self.killed_calls[name] = sent
            if sent.question is not None and not sent.is_free:
                self._fail(sent.question, sent.sent_at, KILLED)
        self.open = {}
        while len(self.killed_calls) > MOST_KILLED:
            self.killed_calls.popitem(last=False)

    def forget_old(self, now: float) -> None:
        """Forget failures that are too old to matter. `now` is UTC Unix seconds."""
        for question, found in list(self.failed_questions.items()):
            if now - found.failed_at > LIFETIME_SECONDS:
                del self.failed_questions[question]

    @property
    def maybe_billed(self) -> int:
        """Calls that may have been billed and brought no answer."""
        return self.billed["maybe"] + self.killed - self.killed_free

    def as_dict(self) -> dict[str, Any]:
        """Return the sums for `stats`."""
        return {
            "sent": self.sent,
            "kept": self.kept,
            "ended": dict(sorted(self.outcomes.items())),
            "in_flight": len(self.open),
            "in_flight_at_kill": self.killed,
            "maybe_billed": self.maybe_billed,
            "unreadable": self.unreadable,
            "killed_calls": [_killed_call(name, sent) for name, sent in self.killed_calls.items()],
        }

    def copy(self) -> "CallState":
        """Return a copy that another thread may read."""
        return CallState(
            self.sent,
            self.kept,
            self.unreadable,
            self.killed,
            self.killed_free,
            self.outcomes.copy(),
            self.billed.copy(),
            dict(self.open),
            self.killed_calls.copy(),
            self.failed_questions.copy(),
        )

    def dump(self) -> dict[str, Any]:
        """Return what `load` reads."""
        return {
            "sums": [self.sent, self.kept, self.unreadable, self.killed, self.killed_free],
            "outcomes": dict(self.outcomes),
            "billed": dict(self.billed),
            "open": [[str(name), *_packed(sent)] for name, sent in self.open.items()],
            "killed": [[str(name), *_packed(sent)] for name, sent in self.killed_calls.items()],
            "vain": [[*question, *found] for question, found in self.failed_questions.items()],
        }

    @classmethod
    def load(cls, members: dict[str, Any]) -> "CallState":
        """Read what `dump` wrote. Raises KeyError, TypeError or ValueError."""
        sent, kept, unreadable, killed, killed_free = map(int, members["sums"])
        return cls(
            sent,
            kept,
            unreadable,
            killed,
            killed_free,
            Counter(members["outcomes"]),
            Counter(members["billed"]),
            dict(_unpacked(members["open"])),
            OrderedDict(_unpacked(members["killed"])),
            OrderedDict(
                (Address(namespace, key, int(ordinal)), FailedQuestion(int(calls), float(failed_at), str(reason)))
                for namespace, key, ordinal, calls, failed_at, reason in members["vain"]
            ),
        )

    def _close(self, call: LineName) -> Sent | None:
        sent = self.open.pop(call, None)
        if sent is None and (sent := self.killed_calls.pop(call, None)) is not None:
            self.killed -= 1  # its end was found after all
            self.killed_free -= sent.is_free
        return sent

    def _fail(self, question: Address, at: float, reason: str) -> None:
        found = self.failed_questions.get(question)
        self.failed_questions[question] = FailedQuestion(
            1 if found is None else found.calls + 1, at, reason[:_REASON_CHARACTERS]
        )
        self.failed_questions.move_to_end(question)
        while len(self.failed_questions) > MOST_QUESTIONS:
            self.failed_questions.popitem(last=False)


def _killed_call(name: LineName, sent: Sent) -> dict[str, Any]:
    return {
        "call": str(name),
        "upstream": sent.upstream,
        "model": sent.model or None,
        "key": None if sent.question is None else sent.question.key,
        "path": sent.path,
        "sent_at": sent.sent_at,
    }


def _packed(sent: Sent) -> list[Any]:
    question = None if sent.question is None else [*sent.question]
    return [sent.upstream, sent.sent_at, question, *sent[3:]]


def _unpacked(rows: list[list[Any]]) -> Iterator[tuple[LineName, Sent]]:
    for name, upstream, sent_at, question, *rest in rows:
        yield name_from(name), Sent(upstream, sent_at, None if question is None else Address(*question), *rest)
