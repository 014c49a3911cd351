"""A loader of iterable-style data that resumes at the sample, with as many workers as before."""

import copy
from collections.abc import Iterator
from typing import Any

from torch.utils.data import Sampler, default_collate, default_convert

from trainhooks.core.cursor import Productions
from trainhooks.core.origin import Origin
from trainhooks.errors import PositionInvalid
from trainhooks.pytorch.data import workers
from trainhooks.pytorch.data.fetch import Collate
from trainhooks.pytorch.data.stream import Begin, StreamEnd, StreamFetcher, StreamTask


class RoundRobin(Sampler[StreamTask]):
    """One task after another, without end: first where each worker begins, from which of them the first batch comes."""

    def __init__(self) -> None:
        self.begins: list[Begin] = []
        self.turn = 0

    def __iter__(self) -> Iterator[StreamTask]:
        for worker, begin in enumerate(self.begins):
            yield StreamTask(begin, gives_batch=worker >= self.turn)
        while True:
            yield StreamTask()


class IterableLoader:
    """One epoch per iteration, from the position on.

    Args:
        dataset: `iter()` gives samples; shards itself by `get_worker_info()` and, with several ranks, by rank. With
            `state_dict` and `load_state_dict` it goes to its place; without, it is read up to there.
        batch_size: None: each sample by itself.
        seed: of every sample.
        rank, world: this process among those that read the data; each has a position of its own.
        replays: read up to the place even so, for a source whose own state loses something (a shuffle buffer).
        options: for `torch.utils.data.DataLoader`.
    """

    kind = "iterable"

    def __init__(
        self,
        dataset: Any,
        *,
        batch_size: int | None,
        seed: int,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
        replays: bool = False,
        collate_fn: Collate | None = None,
        worker_init_fn: Any = None,
        num_workers: int = 0,
        **options: Any,
    ) -> None:
        self.seed = seed
        self._world = world
        self.epoch = 0
        self.origin: Origin | None = None
        """Of the last batch that was yielded."""
        self.first: Origin | None = None
        """Of the first one."""
        self._workers = max(1, num_workers)
        self._turn = self._turn_before = 0
        """Whose answer comes next."""
        self._places = [Begin(0)] * self._workers
        self._before = 0, self._places
        self._tasks = RoundRobin()
        fetcher = StreamFetcher(
            dataset,
            seed=seed,
            first_stream=rank * self._workers,
            batch_size=batch_size,
            drop_last=drop_last,
            collate=collate_fn or (default_convert if batch_size is None else default_collate),
            replays=replays,
        )
        self.productions = Productions(reads_again=not fetcher.keeps_state)
        self._loader = workers.data_loader(
            fetcher, self._tasks, worker_init_fn=worker_init_fn, num_workers=num_workers, **options
        )

    def __iter__(self) -> Iterator[Any]:
        self._tasks.begins, self._tasks.turn = list(self._places), self._turn
        is_from_start = not any(place.count for place in self._places)
        ended = 0
        for answer in workers.begin(self._loader):
            if answer is None:
                continue
            self._turn_before = self._turn
            worker, self._turn = self._turn, (self._turn + 1) % self._workers
            if isinstance(answer, StreamEnd):
                ended += 1
                if ended == self._workers:
                    break
                continue
            ended = 0
            self._before = self._turn_before, list(self._places)
            self.productions.take(answer.produced, begins_epoch=not any(place.count for place in self._places))
            self._places[worker] = Begin(self.epoch, answer.count, answer.state)
            self.origin = Origin(
                epoch=self.epoch, ids=tuple(range(answer.first, answer.count)), worker=worker, keys=answer.keys
            )
            self.first = self.first or self.origin
            yield answer.batch
        if is_from_start and not any(place.count for place in self._places):
            raise PositionInvalid("The data set gave no batch in a whole epoch.", hint="Give data that is not empty.")
        self.begin_epoch(self.epoch + 1)

    def upcoming(self) -> tuple[Origin, bool] | None:
        """Return the first sample of the next batch, if its worker has another one."""
        place = self._places[self._turn]
        return Origin(epoch=self.epoch, ids=(place.count,), worker=self._turn), False

    def begin_epoch(self, epoch: int) -> None:
        """Go to the first sample of an epoch."""
        self.epoch, self._turn = epoch, 0
        self._places = [Begin(epoch)] * self._workers

    def state_dict(self) -> dict[str, Any]:
        """Return the position: numbers, and the source's own states."""
        return self._state(self._turn, self._places)

    def state_before(self) -> dict[str, Any]:
        """Return the position before the last batch that was yielded."""
        return self._state(*self._before)

    def _state(self, turn: int, places: list[Begin]) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "epoch": self.epoch,
            "turn": turn,
            "seed": self.seed,
            "world": self._world,
            "workers": [{"count": place.count, "state": copy.deepcopy(place.state)} for place in places],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
            PositionInvalid: it was taken with other ranks or workers, another seed, or of another kind of data.
        """
        mine = _shape(self.state_dict())
        saved = _shape({"world": self._world, **state})  # releases before it was kept
        if saved != mine:
            listing = ", ".join(
                f"{name} was {saved[name]!r} and is {mine[name]!r}" for name in mine if saved[name] != mine[name]
            )
            raise PositionInvalid(
                f"The saved position does not fit this loader: {listing}.",
                hint="Each worker of each rank reads its own stream: resume with the ranks, workers, seed and kind "
                "of data of the run.",
            )
        self.epoch, self._turn = state["epoch"], state["turn"]
        self._places = [Begin(self.epoch, place["count"], place["state"]) for place in state["workers"]]


def _shape(state: dict[str, Any]) -> dict[str, Any]:
    members = {name: state.get(name) for name in ("kind", "seed", "world")}
    return {**members, "num_workers": len(state.get("workers", ()))}
