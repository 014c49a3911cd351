"""What a user has (a data set, a DataLoader, a loader with a state) made a loader that knows its position."""

from collections.abc import Iterator
from typing import Any, Protocol

from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_convert,
)

from trainhooks.core.origin import Origin
from trainhooks.core.position import Tail
from trainhooks.errors import ConfigInvalid
from trainhooks.pytorch.foreign import ForeignLoader
from trainhooks.pytorch.iterable import IterableLoader
from trainhooks.pytorch.loader import PositionedLoader
from trainhooks.pytorch.stream import is_stateful, loses_its_buffer

_TAKEN_OVER = (
    "num_workers",
    "pin_memory",
    "timeout",
    "worker_init_fn",
    "multiprocessing_context",
    "prefetch_factor",
    "persistent_workers",
    "collate_fn",
)


class Loader(Protocol):
    """What a session asks of a loader."""

    @property
    def kind(self) -> str:
        """`map`, `iterable` or `foreign`."""

    @property
    def origin(self) -> Origin | None:
        """Where the last batch came from."""

    def __iter__(self) -> Iterator[Any]: ...

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last batch that was yielded."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place, before the first batch."""

    def begin_epoch(self, epoch: int) -> None:
        """Go to the first sample of an epoch."""


def make_loader(source: Any, *, seed: int, rank: int = 0, world: int = 1, **options: Any) -> Loader:
    """Make a loader that goes on exactly where it stopped.

    Args:
        source: a map-style data set; an iterable one; a `DataLoader`, which is made anew with its data set and options
            (its order is told from its sampler); or anything with `state_dict` and `load_state_dict` that gives
            batches, which is used as it is.
        options: for a data set, those of `DataLoader`: `batch_size` (1), `shuffle` (True for map-style data),
            `drop_last`, `num_workers`, `collate_fn`, ...; for iterable data also `replays`.

    Raises:
        ConfigInvalid: the source or an option cannot be used.
        PositionInvalid: the data is too short for one step.
    """
    if is_map_style(source):
        return _map_loader(source, seed=seed, rank=rank, world=world, **options)
    if isinstance(source, DataLoader) and not is_stateful(source):
        return _from_loader(source, seed=seed, rank=rank, world=world, **options)
    if is_stateful(source) and not options:
        if loses_its_buffer(source):
            return _iterable_loader(source, seed=seed, rank=rank, world=world, batch_size=None, collate_fn=_as_it_is)
        return ForeignLoader(source, seed=seed, world=world)
    if isinstance(source, DataLoader):
        raise ConfigInvalid(
            f"A {type(source).__name__} is used as it is; {', '.join(sorted(options))} cannot be given beside it.",
            hint="Give the options to the loader itself.",
        )
    if _begins_anew(source):
        return _iterable_loader(source, seed=seed, rank=rank, world=world, **options)
    raise ConfigInvalid(
        f"A {type(source).__name__} can be read once only, so no place in it can be gone back to.",
        hint="Give a data set: an object with len() and [index], or whose iter() begins anew each time.",
    )


def has_own_order(source: Any) -> bool:
    """Whether a DataLoader gives its samples in an order that its own sampler decides."""
    if not isinstance(source, DataLoader) or is_stateful(source):
        return False
    if isinstance(source.dataset, IterableDataset):
        return not source.in_order
    batches = source.batch_sampler
    if not source.in_order or (batches is not None and type(batches) is not BatchSampler):
        return True
    return _order_of(source.sampler) is None


def _begins_anew(source: Any) -> bool:
    if not hasattr(source, "__iter__"):
        return False
    try:
        return iter(source) is not source
    except Exception:  # one for a loader's workers alone, say: they meet what it is, if it is to be met
        return True


def _as_it_is(sample: Any) -> Any:
    return sample


def is_map_style(source: Any) -> bool:
    """Whether it has a length and gives samples by index."""
    return hasattr(source, "__getitem__") and hasattr(source, "__len__") and not isinstance(source, IterableDataset)


def _map_loader(
    source: Any, *, batch_size: int | None = 1, drop_last: bool = False, shuffle: bool = True, **options: Any
) -> Loader:
    _refuse(options)
    single = batch_size is None
    if single:
        options["collate_fn"] = options.get("collate_fn") or default_convert
    return PositionedLoader(
        source,
        batch_size=batch_size or 1,
        shuffle=shuffle,
        tail=Tail.DROP if drop_last else Tail.KEEP,
        single=single,
        **options,
    )


def _iterable_loader(source: Any, *, batch_size: int | None = 1, **options: Any) -> Loader:
    _refuse(options)
    if options.pop("shuffle", False):
        raise ConfigInvalid(
            "Iterable-style data has no order that could be shuffled here.",
            hint="Shuffle in the data set's own __iter__, or give a map-style data set.",
        )
    return IterableLoader(source, batch_size=batch_size, **options)


def _from_loader(source: DataLoader[Any], *, seed: int, rank: int, world: int, **options: Any) -> Loader:
    if options:
        raise ConfigInvalid(
            f"A DataLoader brings its own options; {', '.join(sorted(options))} cannot be given beside it.",
            hint="Set them on the DataLoader, or give its data set in its place.",
        )
    taken = {name: getattr(source, name) for name in _TAKEN_OVER}
    if not source.in_order:
        raise ConfigInvalid("A DataLoader with in_order=False gives batches in no fixed order.", hint="Leave it out.")
    if isinstance(source.dataset, IterableDataset):
        taken.update(batch_size=source.batch_size, drop_last=source.drop_last)
        return _iterable_loader(source.dataset, seed=seed, rank=rank, world=world, **taken)
    batches = source.batch_sampler
    if batches is not None and type(batches) is not BatchSampler:
        raise _unsupported(batches)
    return _map_loader(
        source.dataset,
        seed=seed,
        rank=rank,
        world=world,
        batch_size=source.batch_size,
        drop_last=source.drop_last,
        shuffle=_is_shuffled(source),
        **taken,
    )


def _is_shuffled(source: DataLoader[Any]) -> bool:
    is_shuffled = _order_of(source.sampler)
    if is_shuffled is None:
        raise _unsupported(source.sampler)
    return is_shuffled


def _order_of(sampler: Any) -> bool | None:
    """Return whether a sampler shuffles; None for an order of its own."""
    match sampler:
        case DistributedSampler():  # each rank takes its part from our own sampler
            return bool(sampler.shuffle)
        case RandomSampler() if not sampler.replacement and sampler.num_samples == len(sampler.data_source):
            return True
        case SequentialSampler():
            return False
        case _:
            return None


def _unsupported(sampler: object) -> ConfigInvalid:
    return ConfigInvalid(
        f"The order of a {type(sampler).__name__} cannot be gone back to.",
        hint="Use shuffle=True or False, or a loader with a state of its own, such as torchdata's StatefulDataLoader.",
    )


def _refuse(options: dict[str, Any]) -> None:
    refused = sorted({"sampler", "batch_sampler", "generator", "in_order"} & options.keys())
    if refused:
        raise ConfigInvalid(
            f"{', '.join(refused)} cannot be given: the order is the session's own.",
            hint="It follows from config['seed'] and shuffle=.",
        )
