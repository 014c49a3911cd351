"""A loader of map-style data that knows where it is: what it has yielded has moved its position, nothing else has."""

import logging
from collections.abc import Iterator
from typing import Any

from torch.utils.data import default_collate

from trainhooks.core import seed as seeds
from trainhooks.core.cursor import Productions
from trainhooks.core.origin import Origin
from trainhooks.core.position import Deal, Position, Tail
from trainhooks.errors import PositionInvalid
from trainhooks.pytorch.data import workers
from trainhooks.pytorch.data.fetch import Collate, MapFetcher, MapTask
from trainhooks.pytorch.data.sampler import PositionSampler

log = logging.getLogger("trainhooks")


class PositionedLoader:
    """One epoch per iteration, from the position on.

    Args:
        dataset: map-style: `len()` and `[index]`.
        batch_size: samples per rank in a step.
        seed: of the order and of every sample.
        shuffle: whether an epoch is a random permutation.
        tail: what becomes of samples that do not fill a step.
        rank, world: this process among those that share the data.
        collate_fn: of a list of samples; where `single`, of the one sample.
        single: batches of one sample, as `DataLoader(batch_size=None)` makes them.
        held_seed: of the generator that the user's loader was to shuffle with; None: it had none.
        options: for `torch.utils.data.DataLoader`.

    Raises:
        PositionInvalid: the data is too short for one step.
    """

    kind = "map"

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        tail: Tail = Tail.KEEP,
        rank: int = 0,
        world: int = 1,
        collate_fn: Collate | None = None,
        single: bool = False,
        held_seed: int | None = None,
        worker_init_fn: Any = None,
        **options: Any,
    ) -> None:
        self.seed = seed
        self.position = Position()
        """After the last batch that was yielded."""
        self._before = self.position
        self.origin: Origin | None = None
        """Of the last batch that was yielded."""
        self.first: Origin | None = None
        """Of the first one."""
        self.productions = Productions()
        deal = Deal(length=len(dataset), batch=batch_size, world=world, tail=tail)
        if deal.take(0) == 0:
            needed = deal.per_step if tail is Tail.DROP else world
            raise PositionInvalid(
                f"The data set has {deal.length} samples; one step needs {needed}.",
                hint="Give more data, a smaller batch_size, or drop_last=False.",
            )
        self._held_seed = held_seed if shuffle else None
        self._sampler = PositionSampler(deal, seed=self._order_seed(), shuffle=shuffle, rank=rank)
        fetcher = MapFetcher(dataset, seed=seed, collate=collate_fn or default_collate, single=single)
        self._loader = workers.data_loader(fetcher, self._sampler, worker_init_fn=worker_init_fn, **options)

    @property
    def deal(self) -> Deal:
        """How an epoch is dealt out."""
        return self._sampler.deal

    @property
    def shuffle(self) -> bool:
        """Whether an epoch is a random permutation."""
        return self._sampler.shuffle

    def __len__(self) -> int:
        return self.deal.count()

    def __iter__(self) -> Iterator[Any]:
        if self.deal.take(self.position.offset) == 0:  # a larger batch_size than before leaves no step in this epoch
            self.position = Position(epoch=self.position.epoch + 1)
        self._sampler.position = self.position
        order = self._sampler.order(self.position.epoch)
        for fetched in workers.begin(self._loader):
            task = MapTask(self.position.epoch, order[self.deal.share(self.position.offset, self._sampler.rank)])
            self.origin = Origin(epoch=task.epoch, ids=task.indices, keys=fetched.keys)
            self.productions.take(fetched.produced)
            self._before, self.position = self.position, self.deal.after(self.position)
            self.first = self.first or self.origin
            yield fetched.batch

    def upcoming(self) -> tuple[Origin, bool] | None:
        """Return the samples of the next batch, from the order."""
        at = self.position
        if self.deal.take(at.offset) == 0:
            at = Position(epoch=at.epoch + 1)
        order = self._sampler.order(at.epoch)
        return Origin(epoch=at.epoch, ids=order[self.deal.share(at.offset, self._sampler.rank)]), True

    def _order_seed(self) -> int:
        return self.seed if self._held_seed is None else seeds.derive("generator", self.seed, self._held_seed)

    def begin_epoch(self, epoch: int) -> None:
        """Go to the first sample of an epoch."""
        self.position = Position(epoch=epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the position and what it counts in: JSON."""
        return {
            "kind": self.kind,
            "epoch": self.position.epoch,
            "offset": self.position.offset,
            "length": self.deal.length,
            "seed": self.seed,
            "shuffle": self.shuffle,
            "generator": self._held_seed,
            "tail": str(self.deal.tail),
        }

    def state_before(self) -> dict[str, Any]:
        """Return the position before the last batch that was yielded."""
        return {**self.state_dict(), "epoch": self._before.epoch, "offset": self._before.offset}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position. Batch size, workers and ranks may have changed.

        Raises:
            PositionInvalid: it counts in other data or another order.
        """
        mine = self.state_dict()
        differ = [name for name in ("kind", "length", "seed", "shuffle", "tail") if state.get(name) != mine[name]]
        if differ:
            listing = ", ".join(f"{name} was {state.get(name)!r} and is {mine[name]!r}" for name in differ)
            raise PositionInvalid(
                f"The saved position does not fit this data: {listing}.",
                hint="Resume with the data, seed and order of the run, or start a new one in another directory.",
            )
        self._held_seed = told_seed(state.get("generator"), self._held_seed)
        self._sampler.seed = self._order_seed()
        self.position = Position(epoch=state["epoch"], offset=state["offset"])


def told_seed(saved: int | None, given: int | None) -> int | None:
    """Return the seed of the generator that the run draws with: the checkpoint's. Says where the script's differs."""
    if saved != given:
        log.warning(
            "the run keeps its own order: the generator of its loader was seeded with %s, this one is with %s",
            "nothing" if saved is None else saved,
            "nothing" if given is None else given,
        )
    return saved
