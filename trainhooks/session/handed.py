"""What `steps()` hands to the loop: (step, batch), which notes whether anybody took it apart.

A wrapper such as `zip` takes a batch and drops it unseen when another of its parts ends first. A loop that gets one
unpacks it, or takes it by place: that it was seen is then known, and one that was not is no step.
"""

from collections.abc import Iterator
from typing import Any


class Handed(tuple[int, Any]):
    """A step's number and its batch."""

    is_seen: bool
    batch: Any

    def __new__(cls, step: int, batch: Any) -> "Handed":
        """Make one that nobody has seen."""
        handed = super().__new__(cls, (step, batch))
        handed.is_seen, handed.batch = False, batch
        return handed

    def __iter__(self) -> Iterator[Any]:
        self.is_seen = True
        return super().__iter__()

    def __getitem__(self, place: Any) -> Any:
        self.is_seen = True
        return super().__getitem__(place)
