"""What a user has (a data set, a DataLoader, a loader with a state) made a loader that knows its position."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_convert,
)

from trainhooks.core.cursor import Productions
from trainhooks.core.origin import Origin
from trainhooks.core.position import Tail
from trainhooks.errors import ConfigInvalid
from trainhooks.pytorch.data.foreign import ForeignLoader
from trainhooks.pytorch.data.iterable import IterableLoader
from trainhooks.pytorch.data.loader import PositionedLoader
from trainhooks.pytorch.data.sampled import SampledLoader
from trainhooks.pytorch.data.stream import is_stateful, loses_its_place, samplers_of_nodes

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
        """`map`, `sampled`, `iterable` or `foreign`."""

    @property
    def origin(self) -> Origin | None:
        """Where the last batch came from."""

    @property
    def first(self) -> Origin | None:
        """Where the first batch came from that this loader gave."""

    @property
    def productions(self) -> Productions:
        """Who asked for samples of a teacher while its batches were made."""

    def __iter__(self) -> Iterator[Any]: ...

    def upcoming(self) -> tuple[Origin, bool] | None:
        """Return the samples of the next batch, as far as they are known without loading one, and whether those are
        all; None: they are not known."""

    def state_dict(self) -> dict[str, Any]:
        """Return the place after the last batch that was yielded."""

    def state_before(self) -> dict[str, Any] | None:
        """Return the place before the last batch that was yielded; None: the source cannot go back."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a place, before the first batch."""

    def begin_epoch(self, epoch: int) -> None:
        """Go to the first sample of an epoch."""


def make_loader(source: Any, *, seed: int, rank: int = 0, world: int = 1, **options: Any) -> Loader:
    """Make a loader that resumes exactly where it stopped.

    Args:
        source: a map-style data set; an iterable one; a `DataLoader` (torchdata's, too), which is made anew with its
            data set and options (its sampler shows its order); or anything with `state_dict` and
            `load_state_dict` that gives batches, which is used as it is.
        options: for a data set, those of `DataLoader`: `batch_size` (1), `shuffle` (True for map-style data),
            `drop_last`, `num_workers`, `collate_fn`, `sampler`, `batch_sampler`, ...; for iterable data also `replays`.

    Raises:
        ConfigInvalid: the source or an option cannot be used.
        PositionInvalid: the data is too short for one step.
    """
    if {"sampler", "batch_sampler"} & {name for name, given in options.items() if given is not None}:
        if isinstance(source, DataLoader | IterableDataset) or not hasattr(source, "__getitem__"):
            raise ConfigInvalid(
                f"A {type(source).__name__} takes no sampler beside it.", hint="Give a map-style data set with [index]."
            )
        return _sampled_loader(source, seed=seed, rank=rank, world=world, **options)
    options = {name: each for name, each in options.items() if name not in ("sampler", "batch_sampler")}
    if options.get("replays") and (is_map_style(source) or isinstance(source, DataLoader)):
        raise ConfigInvalid(
            f"replays= is for data that can only be iterated, and a {type(source).__name__} goes to its place.",
            hint="Leave it out.",
        )
    if is_map_style(source):
        return _map_loader(source, seed=seed, rank=rank, world=world, **options)
    if isinstance(source, DataLoader) and (not is_stateful(source) or _is_torchdata(source)):
        _refuse_own_batches(source)
        return _from_loader(source, seed=seed, rank=rank, world=world, **options)
    if is_stateful(source) and not options:
        _refuse_lost_epochs(source)
        if isinstance(source, DataLoader) and not _tells_its_place(source):
            _refuse_own_batches(source)
        if loses_its_place(source):
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
        hint="Give a data set: an object with len() and [index], or whose iter() restarts each time. Several loaders in"
        " one: give each to progress.loader(loader, name='...').",
    )


def as_it_was(source: Any, loader: Loader, place: dict[str, Any], *, seed: int, world: int) -> Loader:
    """Return the loader that a place was saved by: earlier releases used torchdata's loaders as they are, with a state
    that leaves out what their workers draw."""
    if place.get("kind") == ForeignLoader.kind and isinstance(source, DataLoader) and is_stateful(source):
        return ForeignLoader(source, seed=seed, world=world)
    return loader


def keeps_its_place(data: Any, *, replays: bool = False, **options: Any) -> bool:
    """Whether a source is put at its place by its own state, and by nothing else."""
    is_other = is_map_style(data) or isinstance(data, DataLoader)
    return is_stateful(data) and not is_other and not replays and not loses_its_place(data)


def helpers_of(source: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return what else orders or loads the data, by name."""
    given = dict(options)
    if isinstance(source, DataLoader):
        given = {"collate_fn": source.collate_fn, "sampler": source.sampler, "batch_sampler": source.batch_sampler}
    names = {"collate_fn": "collate function", "sampler": "sampler", "batch_sampler": "batch sampler"}
    return {called: given[name] for name, called in names.items() if given.get(name) is not None}


def has_own_order(source: Any) -> bool:
    """Whether a DataLoader gives its samples in an order that its own sampler decides."""
    if not isinstance(source, DataLoader) or is_stateful(source):
        return False
    return not source.in_order or _is_sampled(source) or _makes_own_batches(source)


def _is_sampled(source: DataLoader[Any]) -> bool:
    return is_map_style(source.dataset) and _Order(source).shuffle is None


class _Order:
    """How a DataLoader of map-style data goes through it."""

    def __init__(self, source: DataLoader[Any]) -> None:
        batches: Any = source.batch_sampler
        self.batches: Any = source.sampler if batches is None else batches
        """The sampler, of batches where there are any."""
        self.batch_size: int | None = None
        self.drop_last = False
        self.shuffle: bool | None = None
        """Whether it is the session's random order or the plain one; None: the sampler's own."""
        self.generator: torch.Generator | None = None
        """What it was to shuffle with."""
        sampler = source.sampler
        if batches is not None:
            if type(batches) is not BatchSampler and not _is_torchdata(batches):
                return
            sampler, self.batch_size, self.drop_last = batches.sampler, batches.batch_size, batches.drop_last
            self.batches = BatchSampler(sampler, self.batch_size, self.drop_last)
        self.shuffle = _is_shuffled(sampler, source.dataset)
        if self.shuffle:
            held = None if _is_torchdata(sampler) else getattr(sampler, "generator", None)  # theirs always has one
            self.generator = held or source.generator


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


def _sampled_loader(
    source: Any, *, sampler: Any = None, batch_sampler: Any = None, batch_size: int | None = 1, **options: Any
) -> Loader:
    drop_last = options.pop("drop_last", False)
    if options.pop("shuffle", False) or (sampler is not None and batch_sampler is not None):
        raise ConfigInvalid("sampler=, batch_sampler= and shuffle=True exclude one another.", hint="Give one of them.")
    if batch_sampler is not None and (batch_size != 1 or drop_last):
        raise ConfigInvalid("batch_sampler= decides batch_size and drop_last itself.", hint="Leave them out.")
    _refuse(options)
    single = batch_sampler is None and batch_size is None
    if single:
        options["collate_fn"] = options.get("collate_fn") or default_convert
    if batch_sampler is None:
        batch_sampler = sampler if batch_size is None else BatchSampler(sampler, batch_size, drop_last)
    return SampledLoader(source, batch_sampler, single=single, **options)


def _from_loader(source: DataLoader[Any], *, seed: int, rank: int, world: int, **options: Any) -> Loader:
    if options:
        raise ConfigInvalid(
            f"A DataLoader brings its own options; {', '.join(sorted(options))} cannot be given beside it.",
            hint="Set them on the DataLoader, or give its data set in its place.",
        )
    taken = {name: getattr(source, name) for name in _TAKEN_OVER} | {"seed": seed, "rank": rank, "world": world}
    if not source.in_order:
        raise ConfigInvalid("A DataLoader with in_order=False gives batches in no fixed order.", hint="Leave it out.")
    if isinstance(source.dataset, IterableDataset):
        taken.update(batch_size=source.batch_size, drop_last=source.drop_last)
        return _iterable_loader(source.dataset, **taken)
    order = _Order(source)
    if order.shuffle is None:
        return SampledLoader(source.dataset, order.batches, single=source.batch_sampler is None, **taken)
    held_seed = None if order.generator is None else order.generator.initial_seed()
    return _map_loader(
        source.dataset,
        batch_size=order.batch_size,
        drop_last=order.drop_last,
        shuffle=order.shuffle,
        held_seed=held_seed,
        **taken,
    )


def _is_shuffled(sampler: Any, data: Any) -> bool | None:
    """Return whether a sampler shuffles all of the data; None for an order of its own."""
    match sampler:
        case _ if _is_torchdata(sampler) and hasattr(sampler, "replacement"):  # its RandomSampler is none of torch's
            whole = not sampler.replacement and sampler.num_samples == len(data) == len(sampler.data_source)
            return True if whole else None
        case DistributedSampler() if _goes_through(sampler, DistributedSampler, sampler.dataset, data):
            return bool(sampler.shuffle)  # each rank takes its part from our own sampler
        case RandomSampler() if _goes_through(sampler, RandomSampler, sampler.data_source, data):
            return True if not sampler.replacement and sampler.num_samples == len(data) else None
        case SequentialSampler() if _goes_through(sampler, SequentialSampler, sampler.data_source, data):
            return False
        case _:
            return None


def _goes_through(sampler: Any, kind: type[Any], its_data: Any, data: Any) -> bool:
    """Whether a sampler takes all of the data in that kind's way, and not in one that a subclass has made its own."""
    return (type(sampler).__iter__ is kind.__iter__ or _is_torchdata(sampler)) and len(its_data) == len(data)


def _is_torchdata(loader_or_sampler: Any) -> bool:
    return type(loader_or_sampler).__module__.startswith("torchdata.")


def _makes_own_batches(source: DataLoader[Any]) -> bool:
    """Whether a subclass makes its batches itself: a loader of its data set and options would lose what it does."""
    own = type(source)
    is_own = own.__iter__ is not DataLoader.__iter__ or own._get_iterator is not DataLoader._get_iterator
    return is_own and not _is_torchdata(source)


def _tells_its_place(source: Any) -> bool:
    """Whether a loader gives its state; accelerate's have the method, and give one only if they are asked to."""
    try:
        source.state_dict()
    except (AttributeError, NotImplementedError):
        return False
    return True


def _refuse_lost_epochs(source: Any) -> None:
    """Refuse a pipeline of torchdata's nodes over a sampler whose state leaves out the epoch (torchdata 0.11)."""
    for sampler in samplers_of_nodes(source):
        if is_stateful(sampler) and hasattr(sampler, "set_epoch"):
            raise ConfigInvalid(
                f"The state of a {type(sampler).__name__} within torchdata's nodes leaves out its epoch: a resume in a"
                " later one would give other samples.",
                hint="Take torch's DistributedSampler there, or give the data set itself: progress.loader(dataset).",
            )


def _refuse_own_batches(source: DataLoader[Any]) -> None:
    if _makes_own_batches(source):
        raise ConfigInvalid(
            f"A {type(source).__name__} makes its batches in code of its own, which a resumed loader would leave out.",
            hint="Give the DataLoader that it is built on, before accelerator.prepare() for example, or its data set"
            " with options; do what it does with a batch in collate_fn or in the loop. Or give it state_dict() and"
            " load_state_dict().",
        )


def _refuse(options: dict[str, Any]) -> None:
    refused = sorted({"generator", "in_order"} & options.keys())
    if refused:
        raise ConfigInvalid(
            f"{', '.join(refused)} cannot be given: the order is the session's own.",
            hint="It follows from config['seed'] and shuffle=, or from sampler= or batch_sampler=.",
        )
