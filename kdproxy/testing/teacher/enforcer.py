"""Limits that the teacher enforces as providers do, with their headers or without: for benchmarks and storms.

Requests and tokens in any kind of window; a limit that changes on the way, random 5xx, a neighbour with its share.
Tokens are charged as OpenAI does when a request comes in: characters / 4 and max_tokens.
"""

import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from kdproxy.testing.teacher.call import TeacherCall
from kdproxy.testing.teacher.fault import Fault, Problem
from kdproxy.testing.teacher.openai.error import go_duration
from kdproxy.testing.teacher.window import FixedWindow, SlidingWindow, TokenBucket, Window

WINDOWS: dict[str, Callable[..., Window]] = {"fixed": FixedWindow, "sliding": SlidingWindow, "bucket": TokenBucket}
LIMIT_HEADERS = ("x-ratelimit-", "anthropic-ratelimit-")


@dataclass(slots=True, kw_only=True)
class Enforcer:
    """Admits or refuses questions, and counts both."""

    window: str = "fixed"
    window_seconds: float = 60.0
    requests_per_window: float | None = None
    tokens_per_window: float | None = None
    has_headers: bool = True
    has_retry_after: bool = True
    error_share: float = 0.0
    neighbour_share: float = 0.0
    change_after_seconds: float | None = None
    change_factor: float = 1.0
    clock: Callable[[], float] = time.monotonic
    seed: int = 0
    admitted: int = 0
    refused: int = 0
    failed: int = 0
    refused_at: list[float] = field(default_factory=list)
    """Seconds since the first question."""
    _began_at: float | None = None
    _neighbour_at: float = 0.0
    _windows: dict[str, Window] = field(init=False)
    _random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        limits = {"requests": self.requests_per_window, "tokens": self.tokens_per_window}
        self._windows = {
            name: WINDOWS[self.window](limit=limit, seconds=self.window_seconds, clock=self.clock)
            for name, limit in limits.items()
            if limit is not None
        }
        self._random = random.Random(self.seed)  # noqa: S311 - a script, not a secret

    def admit(self, call: TeacherCall) -> Fault | None:
        """Take a question, or return the refusal."""
        now = self.clock()
        if self._began_at is None:
            self._began_at = self._neighbour_at = now
        self._change(now - self._began_at)
        self._let_neighbour(now)
        if self._random.random() < self.error_share:
            self.failed += 1
            return Fault(problem=Problem.SERVER_ERROR, message="The server had an error.")
        amounts = {"requests": 1.0, "tokens": tokens_of(call)}
        short = [
            window.wait_for(amounts[name]) for name, window in self._windows.items() if not window.fits(amounts[name])
        ]
        if short:
            self.refused += 1
            self.refused_at.append(now - self._began_at)
            return self._refusal(max(short))
        for name, window in self._windows.items():
            window.spend(amounts[name])
        self.admitted += 1
        return None

    def headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        """Replace the default limit headers of an answer with the true state."""
        kept = {name: value for name, value in headers.items() if not name.startswith(LIMIT_HEADERS)}
        if not self.has_headers:
            return kept
        for name, window in self._windows.items():
            kept[f"x-ratelimit-limit-{name}"] = f"{window.limit:.0f}"
            kept[f"x-ratelimit-remaining-{name}"] = str(math.floor(window.remaining))
            kept[f"x-ratelimit-reset-{name}"] = go_duration(window.reset_seconds)
        return kept

    def _refusal(self, wait: float) -> Fault:
        if not self.has_retry_after:
            return Fault(problem=Problem.RATE_LIMITED, message="Rate limit reached")
        return Fault(
            problem=Problem.RATE_LIMITED,
            message="Rate limit reached",
            retry_after=float(math.ceil(wait)),
            retry_after_ms=math.ceil(wait * 1000),
        )

    def _change(self, seconds: float) -> None:
        if self.change_after_seconds is not None and seconds >= self.change_after_seconds:
            self.change_after_seconds = None
            for window in self._windows.values():
                window.limit *= self.change_factor

    def _let_neighbour(self, now: float) -> None:
        """Spend what another client has asked for since the last question."""
        requests = self._windows.get("requests")
        if not self.neighbour_share or requests is None:
            return
        pause = self.window_seconds / (requests.limit * self.neighbour_share)
        while self._neighbour_at + pause <= now:
            self._neighbour_at += pause
            shares = {name: window.limit / requests.limit for name, window in self._windows.items()}
            if all(window.fits(shares[name]) for name, window in self._windows.items()):
                for name, window in self._windows.items():
                    window.spend(shares[name])


def tokens_of(call: TeacherCall) -> float:
    """Return what OpenAI charges when a request comes in."""
    fields = call.fields
    asked = fields.get("max_completion_tokens") or fields.get("max_tokens") or 16
    messages = fields.get("messages")
    texts = [str(message.get("content", "")) for message in messages] if isinstance(messages, list) else []
    return sum(len(text) for text in texts) / 4 + float(asked)
