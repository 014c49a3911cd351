"""What a running job says: how far it is, what it found, what it hands out, how it ended."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a job is, in bytes read."""

    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Line:
    """A journal line as it stands, without its line break."""

    text: bytes


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that the user should see: a line that cannot be used, a row of the index that leads nowhere."""

    members: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Result:
    """The end: sums with stable names."""

    members: dict[str, Any]


Event = Progress | Line | Finding | Result
Events = Iterator[Event]
"""A running job. It works as long as it is asked for the next event; its last is a Result."""
