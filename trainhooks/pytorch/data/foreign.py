"""A loader that keeps its own position, used as it is: a Hugging Face stream, litdata, one of the user's."""

from collections.abc import Iterator
from typing import Any

from trainhooks.core import seed as seeds
from trainhooks.core.cursor import Productions
from trainhooks.core.origin import Origin, origin_of_batch
from trainhooks.errors import PositionInvalid
from trainhooks.pytorch.data import workers
from trainhooks.pytorch.data.producing import watched
from trainhooks.pytorch.data.seeding import kept_apart, seed_all

_MOST_EMPTY = 2
"""A place that was taken after an epoch's last batch leaves an empty rest once; twice, there is no data."""


class ForeignLoader:
    """One epoch per iteration. The source is loaded before its iterator exists, and asked when a position is taken.

    What its iterator draws when it is made comes from hash(seed, epoch): a resumed run makes one more of them than an
    uninterrupted one, and the training's own generators must not differ either.
    """

    kind = "foreign"

    def __init__(self, source: Any, *, seed: int, world: int = 1) -> None:
        self.source = source
        self.seed = seed
        self.world = world
        """Ranks that read the data, each with a state of its own."""
        self.epoch = 0
        self.origin: Origin | None = None
        """Of the last batch that was yielded: from its own columns."""
        self.first: Origin | None = None
        """Of the first one."""
        self.productions = Productions(is_foreign=True)
        self._empty_epochs = 0
        self._is_within = False
        """Whether an iteration was left in the middle of the epoch: the next one continues there."""
        workers.shield(source)

    def __iter__(self) -> Iterator[Any]:
        if self._is_within:
            self.load_state_dict(self.state_dict())  # by itself a source begins its epoch anew
        elif hasattr(self.source, "set_epoch"):
            self.source.set_epoch(self.epoch)
        with kept_apart():
            seed_all(seeds.derive("iterator", self.seed, self.epoch))
            batches = workers.begin(self.source)
        has_given = False
        for batch in watched(batches, self.productions):
            has_given = self._is_within = True
            self.origin = origin_of_batch(batch, epoch=self.epoch)
            self.first = self.first or self.origin
            yield batch
        self.epoch += 1
        self._is_within = False
        self._empty_epochs = 0 if has_given else self._empty_epochs + 1
        if self._empty_epochs == _MOST_EMPTY:
            raise PositionInvalid("The loader gave no batch in a whole epoch.", hint="Give data that is not empty.")

    def upcoming(self) -> tuple[Origin, bool] | None:
        """Only the source knows."""
        return None

    def begin_epoch(self, epoch: int) -> None:
        """Begin an epoch at its first sample: by itself a source does."""
        self.epoch, self._is_within = epoch, False

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and the source's own state."""
        return {
            "kind": self.kind,
            "epoch": self.epoch,
            "world": self.world,
            "source": type(self.source).__qualname__,
            "state": self.source.state_dict(),
        }

    def state_before(self) -> None:
        """A source's own place cannot be gone back from."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            PositionInvalid: it was taken of another kind of loader, or with other ranks.
        """
        name = type(self.source).__qualname__
        if state.get("kind") != self.kind or state["source"] != name:
            raise PositionInvalid(
                f"The saved position is one of {state.get('source', state.get('kind'))}, this loader is a {name}.",
                hint="Resume with the loader of the run.",
            )
        if state.get("world", self.world) != self.world:
            raise PositionInvalid(
                f"The saved position is one of {state['world']} ranks, each with its own; these are {self.world}.",
                hint="Resume with as many ranks, or give map-style data, whose position counts for any number.",
            )
        self.epoch = state["epoch"]
        if hasattr(self.source, "set_epoch"):
            self.source.set_epoch(self.epoch)  # some take a state only in the epoch that it is of
        self.source.load_state_dict(state["state"])
