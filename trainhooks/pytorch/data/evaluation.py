"""The data of an evaluation: each pass begins at its first sample and leaves the training's random numbers alone."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from trainhooks.core import seed as seeds
from trainhooks.core.cursor import Productions
from trainhooks.core.origin import Origin
from trainhooks.errors import ConfigInvalid
from trainhooks.pytorch.data import workers
from trainhooks.pytorch.data.held import HeldGenerators
from trainhooks.pytorch.data.seeding import kept_apart, seed_all
from trainhooks.pytorch.data.source import Loader, has_own_order, is_map_style, make_loader


class EvaluationLoader:
    """One pass over the data per iteration, from its first sample on, in its own order unless `shuffle=True`.

    Only the number of the pass is saved. Random augmentation and `shuffle=True` follow from it, so a resumed training
    evaluates on what an uninterrupted one would have. One iteration at a time: a new one ends the one before.

    Args:
        source, options: see `trainhooks.pytorch.data.source.make_loader`. A `DataLoader` may have any sampler here.
        seed: of the passes.

    Raises:
        ConfigInvalid: the source or an option cannot be used.
    """

    def __init__(self, source: Any, *, seed: int, rank: int = 0, world: int = 1, **options: Any) -> None:
        self.passes = 0
        """How many iterations have begun."""
        self._inner: Loader | _AsItIs
        if has_own_order(source):
            if options:
                raise ConfigInvalid(
                    f"A DataLoader brings its own options; {', '.join(sorted(options))} cannot be given beside it.",
                    hint="Set them on the DataLoader, or give its data set in its place.",
                )
            self._inner = _AsItIs(source, seed)
        else:
            if is_map_style(source) and not {"sampler", "batch_sampler"} & options.keys():
                options = {"shuffle": False, **options}
            self._inner = make_loader(source, seed=seed, rank=rank, world=world, **options)

    @property
    def origin(self) -> Origin | None:
        """Where the last batch came from; None where that is not known."""
        return self._inner.origin

    @property
    def productions(self) -> Productions | None:
        """Who asked for samples of a teacher while its batches were made; None where that is not known."""
        return None if isinstance(self._inner, _AsItIs) else self._inner.productions

    def __len__(self) -> int:
        return len(self._inner)  # type: ignore[arg-type]  # raises TypeError where the length is not known

    def __iter__(self) -> Iterator[Any]:
        self._inner.begin_epoch(self.passes)
        self.passes += 1
        return iter(self._inner)


class _AsItIs:
    """A DataLoader in an order of its own, under random numbers that follow from the pass and the batch."""

    origin: Origin | None = None

    def __init__(self, source: DataLoader[Any], seed: int) -> None:
        self._source = source
        self._seed = seed
        self._pass = 0
        self._held = HeldGenerators({"data set": source.dataset, "collate function": source.collate_fn})
        workers.shield(source)

    def __len__(self) -> int:
        return len(self._source)

    def begin_epoch(self, number: int) -> None:
        """Take the next iteration for this pass."""
        self._pass = number

    def __iter__(self) -> Iterator[Any]:
        number = self._pass
        self._held.look()
        with kept_apart(), self._held.kept_apart():
            self._seed_for(number)  # workers take copies of what is seeded here
            batches = workers.begin(self._source)
        count = 0
        while True:
            with kept_apart(), self._held.kept_apart():
                self._seed_for(number, count)
                try:
                    batch = next(batches)
                except StopIteration:
                    return
            count += 1
            yield batch

    def _seed_for(self, *number: int) -> None:
        seed = seeds.derive("pass", self._seed, *number)
        seed_all(seed)
        self._held.seed(seed)
