"""The events of a running job: its progress, its findings, the lines that it yields, its result."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The progress of a job, in bytes read."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Line:
    """An unchanged journal line, without its line break."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the user should see: a line that cannot be used, an index row that points to no line."""

    members: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """The last event: sums with stable names."""

    members: dict[str, Any]


Event = Progress | Line | Finding | Result
Events = Iterator[Event]
"""A running job. It works while its next event is requested; the last event is a Result."""
