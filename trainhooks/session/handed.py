"""What `steps()` hands to the loop: (step, batch), which notes whether anybody took it apart.

A wrapper such as `zip` takes a batch and drops it unseen when another of its parts ends first. A loop that gets one
unpacks it, or takes it by place: that it was seen is then known, and one that was not is no step. One that is first
seen after the next step began was read ahead: it counted as finished before it was trained.
"""

from collections.abc import Iterator
from typing import Any

from trainhooks.errors import ConfigInvalid


class Handed(tuple[int, Any]):
    """A step's number and its batch."""

    is_seen: bool
    is_over: bool
    """Whether its step has ended, in a session that takes checkpoints."""
    batch: Any

    def __new__(cls, step: int, batch: Any) -> "Handed":
        """Make one that nobody has seen."""
        handed = super().__new__(cls, (step, batch))
        handed.is_seen, handed.is_over, handed.batch = False, False, batch
        return handed

    def __iter__(self) -> Iterator[Any]:
        self._look()
        return super().__iter__()

    def __getitem__(self, place: Any) -> Any:
        self._look()
        return super().__getitem__(place)

    def _look(self) -> None:
        if self.is_over and not self.is_seen:
            raise ConfigInvalid(
                f"steps() was read ahead: step {super().__getitem__(0)} counted as finished before the loop used its"
                " batch, so a checkpoint in between would leave it out.",
                hint="Iterate progress.steps() itself, without list() or chunks of it, and join steps in the loop's"
                " body: if step % 4 == 3: optimizer.step().",
                code="read_ahead",
            )
        self.is_seen = True
