"""Counts, for each question, the calls that may have been billed without an answer. Pure; `now` is monotonic.

A question has a budget: one call and two retries. Then its clients get the provider's last error at once, and a request
for it causes one more attempt only after 10 s, 20 s, ... up to 10 min. The count outlives the client's request, since
scripts and SDKs retry by themselves, and the process: it is restored from the events log at start. A success clears it.
The table is bounded, and entries expire: the least recently used are dropped first.
"""

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

LastError = TypeVar("LastError")

BUDGET = 3
"""Calls that may be billed: the first one and two retries."""
FIRST_SPACING_SECONDS = 10.0
LONGEST_SPACING_SECONDS = 600.0
LIFETIME_SECONDS = 86_400.0
"""Lifetime after the last failure: a day, which is longer than a run pauses."""
MOST_QUESTIONS = 10_000


@dataclass(slots=True)
class Failures(Generic[LastError]):
    """One question's failures since its last success."""

    calls: int
    failed_at: float
    last_error: LastError
    """The provider's last error."""

    @property
    def ready_at(self) -> float:
        """When it may be sent again, on the monotonic clock."""
        if self.calls < BUDGET:
            return self.failed_at
        doublings = min(self.calls - BUDGET, 16)
        return self.failed_at + min(LONGEST_SPACING_SECONDS, FIRST_SPACING_SECONDS * 2.0**doublings)

    def may_send(self, now: float, *, under_way: int) -> bool:
        """Whether a call may be sent while others of the same question are in flight: all of them may fail."""
        return self.ready_at <= now and (not under_way or self.calls + under_way < BUDGET)


class RetryHistory(Generic[LastError]):
    """All questions with such failures and no success since."""

    def __init__(self, most: int = MOST_QUESTIONS) -> None:
        self._most = most
        self._failures: OrderedDict[Hashable, Failures[LastError]] = OrderedDict()
        """Least recently used first."""

    def __len__(self) -> int:
        return len(self._failures)

    def of(self, question: Hashable, now: float) -> Failures[LastError] | None:
        """Return the failures of a question; None: it may be sent."""
        failures = self._failures.get(question)
        if failures is not None and now - failures.failed_at > LIFETIME_SECONDS:
            del self._failures[question]
            return None
        return failures

    def wait(self, question: Hashable, now: float) -> float:
        """Return the seconds until a question may be sent; 0: now."""
        failures = self.of(question, now)
        return 0.0 if failures is None else max(0.0, failures.ready_at - now)

    def add_failure(self, question: Hashable, last_error: LastError, now: float) -> Failures[LastError]:
        """Count a call that may have been billed."""
        failures = self.of(question, now)
        calls = 1 if failures is None else failures.calls + 1
        found = self._failures[question] = Failures(calls, now, last_error)
        self._failures.move_to_end(question)
        while len(self._failures) > self._most:
            self._failures.popitem(last=False)
        return found

    def restore(self, question: Hashable, *, calls: int, failed_at: float, last_error: LastError) -> None:
        """Restore what an earlier process counted; it counts as less recently used than everything since."""
        if question not in self._failures and len(self._failures) < self._most:
            self._failures[question] = Failures(calls, failed_at, last_error)

    def clear(self, question: Hashable) -> None:
        """Forget a question's failures."""
        self._failures.pop(question, None)
