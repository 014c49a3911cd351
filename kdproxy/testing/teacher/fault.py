"""Refusals, before a dialect gives them the provider's status, words and headers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Problem(StrEnum):
    """Why the teacher does not answer the question."""

    RATE_LIMITED = "rate_limited"
    OUT_OF_QUOTA = "out_of_quota"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    UNAUTHORIZED = "unauthorized"
    NOT_FOUND = "not_found"
    BAD_REQUEST = "bad_request"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One refusal."""

    problem: Problem
    message: str
    status: int | None = None
    """Overrides the provider's usual status for the problem."""
    param: str | None = None
    retry_after: float | str | None = None
    retry_after_ms: int | None = None
    per_day: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def wait_seconds(self) -> float | None:
        """The wait as a number, where one was given as a number."""
        if self.retry_after_ms is not None:
            return self.retry_after_ms / 1000
        return None if isinstance(self.retry_after, str) else self.retry_after

    @property
    def wait_headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        if self.retry_after is not None:
            value = self.retry_after
            headers["retry-after"] = value if isinstance(value, str) else f"{value:g}"
        if self.retry_after_ms is not None:
            headers["retry-after-ms"] = str(self.retry_after_ms)
        return {**headers, **self.headers}


class RefusedError(Exception):
    """Raised by a dialect that will not answer a question."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message)
        self.fault = fault


def bad_request(message: str, *, param: str | None = None) -> RefusedError:
    return RefusedError(Fault(problem=Problem.BAD_REQUEST, message=message, param=param))


def not_found(message: str) -> RefusedError:
    return RefusedError(Fault(problem=Problem.NOT_FOUND, message=message))
