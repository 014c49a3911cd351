"""Connections that failed and came back: counted from the first failure to the next success."""

import re
from dataclasses import dataclass

_TEXT_LENGTH = 500
_TOKEN = re.compile(r"\b(?=[\w-]*\d)[A-Za-z][\w-]{19,}\b")  # long words with a digit, as keys are; request ids go too


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One failed call."""

    error: str
    """Name of the exception's class, or `error` for a text."""
    message: str
    status: int | None


@dataclass(slots=True)
class Outages:
    """Failures and recoveries of an attempt. Times are of a monotonic clock."""

    failures: int = 0
    recoveries: int = 0
    down_seconds: float = 0.0
    """Over outages that have ended."""
    last: Failure | None = None
    since: float | None = None
    """Start of the current outage."""

    def failed(self, failure: Failure, now: float) -> None:
        """Note a failure; the first one after a success begins an outage."""
        self.failures += 1
        self.last = failure
        if self.since is None:
            self.since = now

    def recovered(self, now: float) -> float | None:
        """End the outage; returns its seconds, or None without one."""
        if self.since is None:
            return None
        seconds, self.since = max(0.0, now - self.since), None
        self.recoveries += 1
        self.down_seconds += seconds
        return seconds


def describe(error: BaseException | str) -> Failure:
    """Say what failed, without what might be a credential."""
    status = getattr(error, "status_code", None)
    return Failure(
        error="error" if isinstance(error, str) else type(error).__name__,
        message=_TOKEN.sub("***", str(error))[:_TEXT_LENGTH],
        status=status if isinstance(status, int) else None,
    )
