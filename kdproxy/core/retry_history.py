"""How often each question was sent in a way that may have been billed, without an answer. Pure; `now` is monotonic.

A question has a budget: one call and two more. Then its clients get the provider's own last words at once, and one
attempt goes out after 10 s, 20 s, ... 10 min at the earliest, for whoever asks then. The count outlives the client's
request, since a script or an SDK asks again by itself, and the process: a start restores it from the events log. A
success clears it. Bounded and aged: the longest untouched go.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

Words = TypeVar("Words")

BUDGET = 3
"""Calls that may be billed: the first one and two more."""
FIRST_SPACING_SECONDS = 10.0
LONGEST_SPACING_SECONDS = 600.0
REMEMBERED_SECONDS = 86_400.0
"""After its last failure: a day, longer than a run pauses."""
MOST_QUESTIONS = 10_000


@dataclass(slots=True)
class Debt(Generic[Words]):
    """One question's failures since its last success."""

    calls: int
    failed_at: float
    words: Words
    """What the provider said last."""

    @property
    def ready_at(self) -> float:
        """When it may be sent again."""
        if self.calls < BUDGET:
            return self.failed_at
        doublings = min(self.calls - BUDGET, 16)
        return self.failed_at + min(LONGEST_SPACING_SECONDS, FIRST_SPACING_SECONDS * 2.0**doublings)

    def may_send(self, now: float, *, under_way: int) -> bool:
        """Whether a call may go out beside those of the same question that are on the wire: all of them may fail."""
        return self.ready_at <= now and (not under_way or self.calls + under_way < BUDGET)


class RetryHistory(Generic[Words]):
    """All questions that failed so and have not succeeded since."""

    def __init__(self, most: int = MOST_QUESTIONS) -> None:
        self._most = most
        self._debts: OrderedDict[Hashable, Debt[Words]] = OrderedDict()
        """The longest untouched first."""

    def __len__(self) -> int:
        return len(self._debts)

    def of(self, question: Hashable, now: float) -> Debt[Words] | None:
        """Return what is known of a question; None: it may be sent."""
        debt = self._debts.get(question)
        if debt is not None and now - debt.failed_at > REMEMBERED_SECONDS:
            del self._debts[question]
            return None
        return debt

    def wait(self, question: Hashable, now: float) -> float:
        """Return the seconds until a question may be sent; 0: now."""
        debt = self.of(question, now)
        return 0.0 if debt is None else max(0.0, debt.ready_at - now)

    def failed(self, question: Hashable, words: Words, now: float) -> Debt[Words]:
        """Count a call that may have been billed."""
        debt = self.of(question, now)
        calls = 1 if debt is None else debt.calls + 1
        found = self._debts[question] = Debt(calls, now, words)
        self._debts.move_to_end(question)
        while len(self._debts) > self._most:
            self._debts.popitem(last=False)
        return found

    def restore(self, question: Hashable, *, calls: int, failed_at: float, words: Words) -> None:
        """Take over what an earlier process counted; it counts as longer untouched than all that came since."""
        if question not in self._debts and len(self._debts) < self._most:
            self._debts[question] = Debt(calls, failed_at, words)

    def succeeded(self, question: Hashable) -> None:
        """Forget a question's failures."""
        self._debts.pop(question, None)
