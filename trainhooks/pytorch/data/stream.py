"""Iterable-style data in a loader's workers: a stream per worker, each at a place that can be taken and put back.

Workers are asked in a strict round robin, one task for one batch, and answer with a batch or with the end of their
stream: none leaves the round before all have ended, so which worker gives the next batch is known at every moment.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler, get_worker_info

from trainhooks import lineage
from trainhooks.core import seed as seeds
from trainhooks.core.origin import Keys, keys_of_row
from trainhooks.pytorch.data.fetch import Collate, Fetched
from trainhooks.pytorch.data.held import HeldGenerators
from trainhooks.pytorch.data.producing import producer
from trainhooks.pytorch.data.seeding import kept_apart, seed_all


@dataclass(frozen=True, slots=True)
class Begin:
    """Where a worker's stream begins."""

    epoch: int
    count: int = 0
    """Samples that it has given in this epoch."""
    state: Any = None
    """The source's own state after them; None where it keeps none."""


@dataclass(frozen=True, slots=True)
class StreamTask:
    """What a worker is asked for."""

    begin: Begin | None = None
    """Go there first."""
    gives_batch: bool = True


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """A worker's stream is over, in this epoch."""


Answer: TypeAlias = Fetched | StreamEnd | None


class StreamFetcher(Dataset[Answer]):
    """Batches of an iterable-style data set. A sample's seed is hash(seed, epoch, stream, number in it).

    Args:
        first_stream: the number of the first worker's stream; those of other ranks have others.
        batch_size: None: each sample by itself.
        replays: whether to read up to a place even where the source could be put there.
    """

    def __init__(
        self,
        source: Any,
        *,
        seed: int,
        first_stream: int,
        batch_size: int | None,
        drop_last: bool,
        collate: Collate,
        replays: bool,
    ) -> None:
        self.source = source
        self.seed = seed
        self.first_stream = first_stream
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.collate = collate
        self.keeps_state = is_stateful(source) and not replays and not loses_its_place(source)
        self._held = HeldGenerators({} if self.keeps_state else {"data set": source, "collate function": collate})
        self._producer = producer()
        self._pristine: Any = None
        self._has_begun = False
        self._samples: Iterator[Any] = iter(())
        self._begin = Begin(0)
        self._count = 0
        self._has_ended = True

    def __getitem__(self, task: StreamTask) -> Answer:
        if task.begin is not None:
            self._held.look()
        if self._producer is not None:
            self._producer.begin()
        with kept_apart(), self._held.kept_apart():
            if task.begin is not None:
                self._go_to(task.begin)
            answer = self._next_batch() if task.gives_batch else None
        if self._producer is not None and isinstance(answer, Fetched):
            answer.produced = self._producer.end()
        return answer

    def _go_to(self, begin: Begin) -> None:
        self._begin, self._count, self._has_ended = begin, 0, False
        if not self._has_begun and self.keeps_state:
            self._pristine = copy.deepcopy(self.source.state_dict())  # it may refer to lists that the source fills
        if hasattr(self.source, "set_epoch"):
            _unshare_epoch(self.source)
            self._seed_for("epoch")
            self.source.set_epoch(begin.epoch)
        if begin.state is not None and self.keeps_state:  # an earlier release kept one that was lossy
            self.source.load_state_dict(begin.state)
            self._count = begin.count
        elif self._has_begun and self._pristine is not None:
            self.source.load_state_dict(self._pristine)
        self._has_begun = True
        self._seed_for("begin")
        self._samples = iter(self.source)
        while self._count < begin.count:  # a source without a state of its own is read up to the place
            if self._draw() is None:
                break

    def _next_batch(self) -> Answer:
        if self._has_ended:
            return StreamEnd()
        first, samples, keys = self._count, list[Any](), list[Keys]()
        while len(samples) < (self.batch_size or 1) and (drawn := self._draw()) is not None:
            sample, asked = drawn
            samples.append(sample)
            keys.append(keys_of_row(sample) or tuple(asked))
        if not samples or (self.drop_last and len(samples) < (self.batch_size or 1)):
            self._has_ended = True
            return StreamEnd()
        self._seed_for("collate")
        return Fetched(
            batch=self.collate(samples[0] if self.batch_size is None else samples),
            keys=tuple(keys) if any(keys) else None,
            first=first,
            count=self._count,
            state=self._state(),
        )

    def _state(self) -> Any:
        """Return the source's own state, which its next sample does not change. A worker's is copied on its way."""
        if not self.keeps_state:
            return None
        state = self.source.state_dict()
        return copy.deepcopy(state) if get_worker_info() is None else state

    def _draw(self) -> tuple[Any, list[lineage.TeacherKey]] | None:
        """Return the next sample and what was asked for while it was made; None at the end."""
        self._seed_for("sample")
        try:
            with lineage.noting() as asked:
                sample = next(self._samples)
        except StopIteration:
            self._has_ended = True
            return None
        self._count += 1
        return sample, asked

    def _seed_for(self, what: str) -> None:
        info = get_worker_info()
        stream = self.first_stream + (0 if info is None else info.id)
        seed = seeds.derive("stream", self.seed, self._begin.epoch, stream, what, self._count)
        seed_all(seed)
        self._held.seed(seed)


def is_stateful(source: Any) -> bool:
    """Whether an object's place can be taken and put back."""
    return hasattr(source, "state_dict") and hasattr(source, "load_state_dict")


def loses_its_place(source: Any) -> bool:
    """Whether a source's own state leaves out what decides its next samples.

    A Hugging Face stream that shuffles through a buffer, or is joined from one that does, leaves the buffer out, as it
    says itself when it is put back (datasets 5.2, `IterableDataset.load_state_dict`). A pipeline of torchdata's nodes
    leaves out the order of a sampler that has neither a state nor epochs: it is drawn anew from the global generators
    (torchdata 0.11, `SamplerWrapper.reset`).
    """
    return _shuffles(getattr(source, "_ex_iterable", None)) or _redraws(source)


def _shuffles(stage: Any) -> bool:
    """Every way to combine streams (interleaved, concatenated, mapped, ...) keeps theirs as stages of its own."""
    if isinstance(stage, list | tuple):
        return any(map(_shuffles, stage))
    names = {each.__name__ for each in type(stage).__mro__}
    if "BufferShuffledExamplesIterable" in names:
        return True
    return "_BaseExamplesIterable" in names and any(map(_shuffles, vars(stage).values()))


def _redraws(source: Any) -> bool:
    return any(
        not is_stateful(each) and not hasattr(each, "set_epoch") and not isinstance(each, SequentialSampler)
        for each in samplers_of_nodes(source)
    )


def samplers_of_nodes(node: Any) -> Iterator[Any]:
    """Yield the samplers that a pipeline of torchdata's nodes draws from."""
    parts = node.values() if isinstance(node, dict) else ()
    if type(node).__module__.startswith("torchdata.nodes"):
        if hasattr(node, "sampler"):
            yield node.sampler
        parts = vars(node).values()
    for each in parts:
        yield from samplers_of_nodes(each)


def _unshare_epoch(source: Any) -> None:
    """Give a Hugging Face stream an epoch of this process's own: theirs lies in memory that all workers share, and
    `set_epoch` adds a difference to it, so that two workers at once may add it twice."""
    if isinstance(epoch := getattr(source, "_epoch", None), Tensor) and epoch.is_shared():  # type: ignore[no-untyped-call]
        source._epoch = epoch.clone()
