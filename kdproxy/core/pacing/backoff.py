"""The back-off after refusals: of a lane, and of one request that is refused while others pass. Pure.

The first wait that a provider names in a row is honoured from 100 ms on. From the second refusal without an acceptance
in between a floor of ours doubles, 1 s, 2 s, ... 60 s, whatever the provider says: `Retry-After: 0`, a date that has
passed and a millisecond are all seen in the wild (nodejs/undici#5519, openai/openai-java#878, read 2026-11). A lane's
floor counts the different requests that were refused in the row, a request's own floor the refusals of that request, so
one request that is always refused does not delay the others for long. Its refusals are its own, and not the lane's
state, once a call that was sent after the last one of them has passed: it alone is too large, or its prompt is
moderated.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field

LEAST_WAIT_SECONDS = 0.1
"""A shorter wait is pointless: the next call would meet the same state."""
FIRST_BACKOFF_SECONDS = 1.0
"""AWS's base delay for throttling (SDK standard retry mode, 2026-11)."""
LONGEST_BACKOFF_SECONDS = 60.0
LONGEST_PROBE_SECONDS = 8.0
"""The same for the first minute of a wall that names no wait, where calls have passed before: most windows are a
minute's, and what is waited beyond their end is lost."""
WINDOW_SECONDS = 60.0
_JITTER_SHARE = 0.25
_LARGEST_EXPONENT = 16


def floor_seconds(refusals: int, *, jitter: float, longest_seconds: float = LONGEST_BACKOFF_SECONDS) -> float:
    """Return our own floor after so many refusals in a row: none after the first one.

    Args:
        jitter: uniform in [0, 1), put above the floor.
        longest_seconds: the bound of the doubling.
    """
    if refusals < 2:
        return 0.0
    doubled = FIRST_BACKOFF_SECONDS * 2.0 ** min(refusals - 2, _LARGEST_EXPONENT)
    return min(longest_seconds, doubled) * (1 + _JITTER_SHARE * jitter)


def named_seconds(wait_seconds: float, *, jitter: float) -> float:
    """Return the wait for what a provider named: a little above it.

    Clocks differ, and clients that share a limit should not meet.
    """
    wait_seconds = max(LEAST_WAIT_SECONDS, wait_seconds)
    return wait_seconds + jitter * min(1.0, 0.05 + 0.02 * wait_seconds)


@dataclass(slots=True, eq=False)
class RequestBackoff:
    """What one request was refused with, over all its attempts."""

    refusals: int = 0
    """In a row."""
    ready_at: float = -math.inf
    """Monotonic seconds: not sent again before."""
    is_aside: bool = False
    """Whether its refusals are its own."""
    refused_at: float = math.inf

    @property
    def yields(self) -> bool:
        """Whether other waiters go first."""
        return self.refusals >= 2

    def rate_limited(
        self,
        now: float,
        *,
        passed_sent_at: float,
        wait_seconds: float | None,
        jitter: float,
        is_late: bool = False,
        is_crowded: bool = False,
        lanes: int = 1,
    ) -> bool:
        """Count a refusal; say whether it is this request's own, and not the lane's.

        Args:
            passed_sent_at: when the youngest call of the lane that has passed was sent.
            wait_seconds: what the provider asked, a floor; None: it did not say.
            jitter: uniform in [0, 1).
            is_late: it was sent before others met the same wall, so it shows nothing about this request.
            is_crowded: calls at once are bounded, and the end of another one makes room.
            lanes: how many lanes may take the request: each is tried before it waits.
        """
        if is_late and not self.is_aside:
            return False
        self.refusals += 1
        self.is_aside = self.is_aside or passed_sent_at > self.refused_at
        self.refused_at = now
        wait = 0.0
        if self.is_aside or not is_crowded:
            wait = floor_seconds(self.refusals - (lanes - 1), jitter=jitter)
        if self.is_aside and wait_seconds is not None:
            wait = max(wait, named_seconds(wait_seconds, jitter=jitter))
        self.ready_at = now + wait
        return self.is_aside

    def reset(self) -> None:
        """Start again: the provider accepted the request."""
        self.refusals, self.ready_at, self.is_aside, self.refused_at = 0, -math.inf, False, math.inf


LIFETIME_SECONDS = 600.0
_MOST_REMEMBERED = 1_024


@dataclass(slots=True)
class Backoffs:
    """The back-off of each question that was refused of late: it outlives the request of a client that asks again."""

    _found: OrderedDict[Hashable, RequestBackoff] = field(default_factory=OrderedDict)

    def of(self, question: Hashable, now: float) -> RequestBackoff:
        """Return the back-off of a question: a new one if it was not refused of late."""
        found = self._found.get(question)
        if found is None or now - found.refused_at > LIFETIME_SECONDS:
            return RequestBackoff()
        return found

    def remember(self, question: Hashable, backoff: RequestBackoff) -> None:
        """Keep it: the question was refused."""
        self._found[question] = backoff
        self._found.move_to_end(question)
        if len(self._found) > _MOST_REMEMBERED:
            self._found.popitem(last=False)

    def forget(self, question: Hashable) -> None:
        """The question was accepted."""
        self._found.pop(question, None)
