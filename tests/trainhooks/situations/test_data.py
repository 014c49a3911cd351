"""Data as public reports describe it: loaders, samplers and streams whose position others have lost on a resume."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)  # fmt: skip

from tests.trainhooks.situations.runs import Made, whole_and_cut
from trainhooks import training_progress_context
from trainhooks.errors import ConfigInvalid

ROWS = [torch.tensor([float(each)]) for each in range(13)]


class Augmented(Dataset[Any]):
    """Draws from three global generators for each sample."""

    def __len__(self) -> int:
        return 13

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, np.random.rand(), random.random(), float(torch.rand(1))])


def seed_by_worker(worker: int) -> None:
    np.random.seed(worker)


def workers_seeded_by_number() -> Made:
    """Each worker seeds numpy with its number: after a resume the augmentation of the first epoch came again."""
    return Made(DataLoader(Augmented(), batch_size=3, shuffle=True, num_workers=2, worker_init_fn=seed_by_worker))


def persistent_workers() -> Made:
    return Made(DataLoader(Augmented(), batch_size=3, shuffle=True, num_workers=2, persistent_workers=True))


def drop_last_in_a_batch_sampler() -> Made:
    """A loader that skips batches forgot drop_last."""
    batches = BatchSampler(SequentialSampler(range(13)), batch_size=4, drop_last=True)
    return Made(DataLoader(ROWS, batch_sampler=batches))


def seedable_sampler() -> Made:
    from accelerate.data_loader import SeedableRandomSampler

    sampler = SeedableRandomSampler(ROWS, data_seed=3)
    return Made(DataLoader(ROWS, batch_size=3, sampler=sampler))


def length_grouped() -> Made:
    from transformers.trainer_pt_utils import LengthGroupedSampler

    sampler = LengthGroupedSampler(2, lengths=[3, 9, 2, 7, 7, 1, 8, 4, 4, 6, 2, 5, 9])
    return Made(DataLoader(ROWS, batch_size=2, sampler=sampler))


def stateful_distributed() -> Made:
    from torchdata.stateful_dataloader import StatefulDataLoader
    from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

    sampler = StatefulDistributedSampler(ROWS, num_replicas=1, rank=0, shuffle=True, seed=4)
    return Made(StatefulDataLoader(ROWS, batch_size=3, sampler=sampler))


def end_of_an_epoch() -> Made:
    """A state that is taken at an epoch's end dropped the next epoch."""
    from torchdata.stateful_dataloader import StatefulDataLoader

    return Made(StatefulDataLoader(ROWS[:6], batch_size=2, shuffle=True, num_workers=1))  # three batches: a stop


def nodes(kind: str) -> Callable[[], Made]:
    """Pipelines of torchdata's nodes: their state holds the place, and not always the order that it counts in."""

    def make() -> Made:
        import torchdata.nodes as tn
        from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

        sampler: Any = {
            "random": lambda: RandomSampler(range(13)),
            "random with a generator": lambda: RandomSampler(range(13), generator=torch.Generator().manual_seed(3)),
            "in order": lambda: SequentialSampler(range(13)),
            "distributed": lambda: DistributedSampler(ROWS, num_replicas=1, rank=0),
            "stateful": lambda: StatefulDistributedSampler(ROWS, num_replicas=1, rank=0, shuffle=True, seed=4),
        }[kind]()
        node = tn.SamplerWrapper(sampler)
        return Made(tn.Loader(tn.Batcher(tn.Mapper(node, ROWS.__getitem__), batch_size=3, drop_last=False)))

    make.__name__ = f"nodes {kind}"
    return make


class Bucketed:
    """Keeps a position of its own, which workers run ahead of."""

    def __init__(self) -> None:
        self.rng = random.Random(3)
        self.given = 0
        self.epoch = 0

    def __iter__(self) -> Iterator[list[int]]:
        order = list(range(13))
        random.Random(self.epoch).shuffle(order)
        batches = [order[first : first + 3] for first in range(0, 13, 3)]
        for batch in batches[self.given :]:
            self.given += 1
            yield batch
        self.given, self.epoch = 0, self.epoch + 1

    def state_dict(self) -> dict[str, Any]:
        return {"given": self.given, "epoch": self.epoch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.given, self.epoch = state["given"], state["epoch"]


def sampler_ahead_of_its_workers() -> Made:
    return Made(DataLoader(ROWS, batch_sampler=Bucketed(), num_workers=2))


def distributed_sampler_never_told_its_epoch() -> Made:
    return Made(DataLoader(ROWS, batch_size=3, sampler=DistributedSampler(ROWS, num_replicas=1, rank=0)))


class Stream(IterableDataset[Any]):
    def __init__(self, first: int, count: int = 7) -> None:
        self.first, self.count = first, count

    def __iter__(self) -> Iterator[Any]:
        return iter([torch.tensor([float(self.first + each)]) for each in range(self.count)])


def chained() -> Made:
    return Made(ChainDataset([Stream(0), Stream(100, 3)]), {"batch_size": 2})


class Packed(IterableDataset[Any]):
    """Joins texts into rows of one length; what is left over waits in a buffer."""

    def __iter__(self) -> Iterator[Any]:
        buffer: list[int] = []
        for text in range(1, 30):
            buffer += [text] * (text % 5)
            while len(buffer) >= 4:
                yield torch.tensor(buffer[:4])
                buffer = buffer[4:]


def packed() -> Made:
    return Made(Packed(), {"batch_size": 2})


class Packing(Packed):
    """The same with a state of its own, as pre-training recipes have it."""

    def __init__(self) -> None:
        self.text, self.buffer = 1, list[int]()

    def __iter__(self) -> Iterator[Any]:
        while self.text < 30:
            self.buffer += [self.text] * (self.text % 5)
            self.text += 1
            while len(self.buffer) >= 4:
                row, self.buffer = self.buffer[:4], self.buffer[4:]
                yield torch.tensor(row)
        self.text, self.buffer = 1, []

    def state_dict(self) -> dict[str, Any]:
        return {"text": self.text, "buffer": self.buffer}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.text, self.buffer = state["text"], list(state["buffer"])


def packing_with_a_state() -> Made:
    return Made(Packing(), {"batch_size": 2})


def packing_with_a_state_as_it_is() -> Made:
    return Made(Packing())


class Crops(IterableDataset[Any]):
    """Random crops of one long text, without end."""

    def __iter__(self) -> Iterator[Any]:
        while True:
            at = int(torch.randint(50, (1,)))
            yield torch.arange(at, at + 4)


def crops() -> Made:
    return Made(Crops(), {"batch_size": 2})


def crops_by_workers() -> Made:
    return Made(Crops(), {"batch_size": 2, "num_workers": 2})


class ShuffleBuffer(IterableDataset[Any]):
    """As tar readers shuffle: a buffer, and a generator of its own."""

    def __init__(self) -> None:
        self.rng = random.Random(7)

    def __iter__(self) -> Iterator[Any]:
        buffer = []
        for each in range(17):
            buffer.append(each)
            if len(buffer) > 5:
                yield torch.tensor([buffer.pop(self.rng.randrange(len(buffer)))])
        self.rng.shuffle(buffer)
        yield from (torch.tensor([each]) for each in buffer)


def shuffle_buffer() -> Made:
    return Made(ShuffleBuffer(), {"batch_size": 2})


def hub(kind: str) -> Callable[[], Made]:
    def make() -> Made:
        import datasets

        table = datasets.Dataset.from_dict({"x": list(range(40))})
        stream = table.to_iterable_dataset(num_shards=4)
        source: Any = {
            "batched": lambda: stream.batch(3),
            "repeated": lambda: stream.take(5).repeat(None).batch(2),
            "shuffled and skipped": lambda: stream.shuffle(seed=3, buffer_size=8).skip(4).batch(2),
            "filtered": lambda: stream.filter(lambda row: row["x"] % 3 > 0).map(lambda row: {"x": row["x"] + 1}),
            "split": lambda: __import__("datasets.distributed").distributed.split_dataset_by_node(stream, 0, 2),
            "map style with random transform": lambda: table.with_transform(
                lambda rows: {"x": [each + random.random() for each in rows["x"]]}
            ),
            "map style shuffled": lambda: table.shuffle(seed=3).select(range(20)),
            "concatenated": lambda: datasets.concatenate_datasets([stream.shuffle(seed=1, buffer_size=4), stream]),
        }[kind]()
        return Made(source)

    make.__name__ = f"hub {kind}"
    return make


def nested() -> Made:
    """A subset of a join of subsets."""
    joined = ConcatDataset([Subset(Augmented(), [1, 3, 5, 7]), Subset(Augmented(), [0, 2])])  # type: ignore[list-item]
    return Made(DataLoader(Subset(joined, [5, 0, 3, 1]), batch_size=2, shuffle=True))  # type: ignore[arg-type]


SITUATIONS = [
    workers_seeded_by_number,
    persistent_workers,
    drop_last_in_a_batch_sampler,
    seedable_sampler,
    length_grouped,
    stateful_distributed,
    end_of_an_epoch,
    sampler_ahead_of_its_workers,
    distributed_sampler_never_told_its_epoch,
    chained,
    packed,
    packing_with_a_state,
    packing_with_a_state_as_it_is,
    crops,
    crops_by_workers,
    shuffle_buffer,
    nested,
    *map(nodes, ("random", "random with a generator", "in order", "distributed")),
    *map(
        hub,
        (
            "batched",
            "repeated",
            "shuffled and skipped",
            "filtered",
            "split",
            "map style with random transform",
            "map style shuffled",
            "concatenated",
        ),
    ),
]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")
@pytest.mark.parametrize("make", SITUATIONS, ids=lambda make: make.__name__)
def test_three_resumes_see_what_an_uninterrupted_run_sees(tmp_path: Path, make: Callable[[], Made]) -> None:
    whole, cut = whole_and_cut(tmp_path, make)
    assert cut == whole
    assert len({str(each) for each in whole[:-1]}) == len(whole) - 1


class Doubling(DataLoader[Any]):
    """As loaders that move batches to a device, or mix them there."""

    def __iter__(self) -> Any:
        for batch in super().__iter__():
            yield batch * 2


def doubling() -> Any:
    return Doubling(ROWS, batch_size=2)


def prepared() -> Any:
    from accelerate import Accelerator

    return Accelerator(cpu=True).prepare(DataLoader(ROWS, batch_size=3, shuffle=True))


@pytest.mark.parametrize("make", [doubling, prepared], ids=lambda make: make.__name__)
def test_a_loader_with_batches_of_its_own_is_not_made_anew_without_them(
    tmp_path: Path, make: Callable[[], Any]
) -> None:
    """It was: what its __iter__ does with a batch was left out, in silence."""
    with (
        training_progress_context({}, tmp_path, 4, database=False) as progress,
        pytest.raises(ConfigInvalid, match="in code of its own, which a resumed loader would leave out"),
    ):
        progress.loader(make())


def test_a_sampler_whose_state_leaves_out_its_epoch_is_refused_within_nodes(tmp_path: Path) -> None:
    with (
        training_progress_context({}, tmp_path, 4, database=False) as progress,
        pytest.raises(ConfigInvalid, match=r"leaves out its epoch.*DistributedSampler"),
    ):
        progress.loader(nodes("stateful")().source)


def test_an_evaluation_uses_it_as_it_is(tmp_path: Path) -> None:
    with training_progress_context({}, tmp_path, 4, database=False) as progress:
        val = progress.loader(doubling(), evaluates=True)
        assert [row for batch in val for row in batch.flatten().tolist()] == [2.0 * each for each in range(13)]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_loaders_that_are_joined_in_one_are_refused_with_the_way(tmp_path: Path) -> None:
    from pytorch_lightning.utilities.combined_loader import CombinedLoader

    joined = CombinedLoader({"a": DataLoader(ROWS), "b": DataLoader(ROWS)}, "max_size_cycle")
    with (
        training_progress_context({}, tmp_path, 4, database=False) as progress,
        pytest.raises(ConfigInvalid, match=r"Several loaders in one: give each to .*name="),
    ):
        progress.loader(joined)
