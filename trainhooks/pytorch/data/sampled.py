"""A loader of map-style data in the order of the user's own sampler, which resumes at the batch.

The place is counted in batches that the sampler gave, over all ranks where they are dealt out. On resume the sampler
is drawn up to there, which loads no sample, and must give what it gave: the running digest says so. A sample's seed is
hash(seed, epoch, place in the epoch): an index that comes twice gets other random numbers the second time.
"""

import copy
import logging
from collections import deque
from collections.abc import Iterator
from typing import Any

from torch.utils.data import Sampler, default_collate

from trainhooks.core import seed as seeds
from trainhooks.core.cursor import Productions
from trainhooks.core.origin import Origin
from trainhooks.core.ranks import Ranks
from trainhooks.errors import PositionInvalid
from trainhooks.pytorch.data import drawing, sampler_trial, workers
from trainhooks.pytorch.data.drawing import Drawing, Drawn
from trainhooks.pytorch.data.fetch import Collate, MapFetcher, MapTask
from trainhooks.pytorch.data.loader import told_seed

log = logging.getLogger("trainhooks")

_COMPARED = 256
"""How many batches of the first epoch ranks compare: an endless sampler has no last one."""


class SampledTasks(Sampler[MapTask]):
    """The tasks of one epoch for one rank: first what was drawn and not given, then what is drawn anew."""

    def __init__(self) -> None:
        self.ahead: deque[Drawn] = deque()
        """Drawn and not given yet: a loader's workers are asked ahead."""
        self.drawing: Drawing | None = None
        self._rank = self._part = 0

    def deal_out(self, *, rank: int, part: int) -> None:
        """Say which of the batches of a step are this rank's, and whose order it is."""
        self._rank, self._part = rank, part

    def task(self, drawn: Drawn, epoch: int) -> MapTask:
        """Return what this rank loads of what one step takes."""
        before = sum(len(batch) for batch in drawn.batches[: self._rank])
        return MapTask(epoch, drawn.batches[self._rank], first=drawn.first + before, part=self._part)

    def __iter__(self) -> Iterator[MapTask]:
        assert self.drawing is not None
        for drawn in list(self.ahead):
            yield self.task(drawn, self.drawing.epoch)
        while (new := self.drawing.draw()) is not None:
            self.ahead.append(new)
            yield self.task(new, self.drawing.epoch)


class SampledLoader:
    """One epoch per iteration, from the position on.

    Args:
        dataset: gives a sample for each index that the sampler gives.
        batches: the sampler: batches of indices, or single indices where `single`.
        seed: of every draw and of every sample.
        rank, world: this process among those that share the data. A sampler that knows ranks gives each its own
            batches; any other gives all ranks the same, and rank r takes each `world`-th one from the r-th on.
        single: no batches: each index by itself.
        options: for `torch.utils.data.DataLoader`.
    """

    kind = "sampled"

    def __init__(
        self,
        dataset: Any,
        batches: Any,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        collate_fn: Collate | None = None,
        single: bool = False,
        worker_init_fn: Any = None,
        **options: Any,
    ) -> None:
        self.seed = seed
        self.origin: Origin | None = None
        """Of the last batch that was yielded."""
        self.first: Origin | None = None
        """Of the first one."""
        self.productions = Productions()
        self._batches = batches
        sampler_trial.remember(batches)
        self._single = single
        self._held_seed = drawing.seed_held(batches)
        self._length = len(dataset) if hasattr(dataset, "__len__") else None
        self._rank, self._world = rank, world
        self._tasks = SampledTasks()
        self._ranks: int | None = None
        """How many ranks the sampler itself deals out to; None: it knows none."""
        self._deal_out(is_own=world > 1 and drawing.knows_ranks(batches))
        self._epoch = 0
        self._given = 0
        """Batches of this epoch, over all ranks that they are dealt out to."""
        self._digest = self._before = drawing.START
        fetcher = MapFetcher(dataset, seed=seed, collate=collate_fn or default_collate, single=single)
        self._loader = workers.data_loader(fetcher, self._tasks, worker_init_fn=worker_init_fn, **options)

    def _deal_out(self, *, is_own: bool) -> None:
        """Deal the sampler's batches out to the ranks, or leave to each what its own sampler gives."""
        self._ranks = self._world if is_own else None
        self._group = 1 if is_own else self._world
        self._tasks.deal_out(rank=0 if is_own else self._rank, part=self._rank if is_own else 0)

    def agree(self, ranks: Ranks) -> None:
        """Compare with the other ranks what the sampler gives: one that differs from rank to rank knows its own part.

        Collective. One whose names or code mention ranks and that gives all of them the same is left as it is, as
        where several ranks share their samples (tensor parallel ones), and said.

        Raises:
            PositionInvalid: on another rank the sampler failed.
        """
        before = sampler_trial.SamplerTrial(self._batches)
        digest, failure = "", None
        try:
            epoch = self._draw_epoch(0, drawing.START)
            epoch.skip(_COMPARED)
            digest = epoch.digest
        except Exception as error:  # the other ranks wait for this one
            failure = error
        before.undo()
        is_alike = ranks.all_ok(digest == ranks.share(digest.encode()).decode())
        if not ranks.all_ok(failure is None):
            raise PositionInvalid(
                f"The {type(self._batches).__name__} fails on a rank ({failure or 'on another one'}).",
                hint="See that rank's own log.",
            ) from failure
        name = type(self._batches).__name__
        if not is_alike and self._ranks is None:
            log.warning("%s gives each rank its own batches, and nothing in its code says so: each keeps its own", name)
            self._deal_out(is_own=True)
        elif is_alike and self._ranks is not None:
            log.warning(
                "%s knows of ranks and gives all of them the same batches: each trains on the same samples", name
            )

    def __len__(self) -> int:
        return len(self._batches) // self._group

    def __iter__(self) -> Iterator[Any]:
        if self._tasks.drawing is None:
            self._tasks.drawing = self._draw_epoch(self._epoch, self._digest)
        elif not self._tasks.ahead and self._given and not self._draws_another():
            digest = self._tasks.drawing.digest
            self.begin_epoch(self._epoch + 1)  # it was left behind its last batch
            self._tasks.drawing = self._draw_epoch(self._epoch, digest)
        for fetched in workers.begin(self._loader):
            drawn = self._tasks.ahead.popleft()
            task = self._tasks.task(drawn, self._epoch)
            self._given += self._group
            self._before, self._digest = self._digest, drawn.digest
            self.productions.take(fetched.produced)
            self.origin = Origin(epoch=self._epoch, ids=_ids(task.indices), keys=fetched.keys)
            self.first = self.first or self.origin
            yield fetched.batch
        if not self._given:
            raise PositionInvalid(
                f"The {type(self._batches).__name__} gave no batch in a whole epoch.",
                hint="Give one that can be iterated again for each epoch, and as many batches as there are ranks.",
            )

    def upcoming(self) -> tuple[Origin, bool] | None:
        """Return the samples of the next batch, if it has been drawn: the sampler is not asked ahead for it."""
        if not self._tasks.ahead:
            return None
        task = self._tasks.task(self._tasks.ahead[0], self._epoch)
        return Origin(epoch=self._epoch, ids=_ids(task.indices)), True

    def _draws_another(self) -> bool:
        assert self._tasks.drawing is not None
        if (drawn := self._tasks.drawing.draw()) is not None:
            self._tasks.ahead.append(drawn)
        return drawn is not None

    def _draw_epoch(self, epoch: int, digest: str, state: Any = None) -> Drawing:
        return Drawing(
            self._batches,
            seed=self.seed if self._held_seed is None else seeds.derive("generator", self.seed, self._held_seed),
            epoch=epoch,
            group=self._group,
            single=self._single,
            digest=digest,
            state=state,
        )

    def begin_epoch(self, epoch: int) -> None:
        """Go to the first sample of an epoch."""
        self._epoch, self._given = epoch, 0
        self._tasks.ahead.clear()
        self._tasks.drawing = None

    def state_dict(self) -> dict[str, Any]:
        """Return the place behind the last batch that was yielded, and the sampler's own state at its epoch's start."""
        epoch = self._tasks.drawing
        return {
            "kind": self.kind,
            "epoch": self._epoch,
            "batches": self._given,
            "digest": self._digest,
            "start": self._digest if epoch is None else epoch.start_digest,
            "sampler": None if epoch is None else copy.deepcopy(epoch.start_state),
            "length": self._length,
            "seed": self.seed,
            "generator": self._held_seed,
            "ranks": self._ranks,
        }

    def state_before(self) -> dict[str, Any]:
        """Return the place before the last batch that was yielded."""
        return {**self.state_dict(), "batches": max(0, self._given - self._group), "digest": self._before}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a saved place: draw up to it, and see that the sampler gives what it gave. Loads no sample.

        Raises:
            PositionInvalid: it counts in other data or with other ranks, or the sampler gives something else.
        """
        mine = self.state_dict()
        differ = [name for name in ("kind", "length", "seed", "ranks") if state.get(name) != mine[name]]
        if differ:
            listing = ", ".join(f"{name} was {state.get(name)!r} and is {mine[name]!r}" for name in differ)
            raise PositionInvalid(
                f"The saved position does not fit this sampler: {listing}.",
                hint="Resume with the data, sampler and seed of the run, and with as many ranks where the sampler "
                "deals its batches out to ranks itself.",
            )
        self._held_seed = told_seed(state.get("generator"), self._held_seed)
        pristine = drawing.state_of(self._batches)
        if state["sampler"] is not None and pristine is not None:
            before = sampler_trial.SamplerTrial(self._batches)
            if self._goes_to(state, state["sampler"]):
                return
            before.undo()
        if not drawing.has_memory(self._batches) and self._goes_to(state, None):
            return
        before = sampler_trial.SamplerTrial(self._batches)
        if not self._replays(state, pristine):
            sampler_trial.begin_anew(self._batches)  # this object may have been drawn from before, in this process
            if self._replays(state, pristine):
                return
            before.undo()
            raise PositionInvalid(
                f"The {type(self._batches).__name__} gives other batches than it gave before the checkpoint.",
                hint="Make it as the run did, and let what it gives follow from its epoch (set_epoch) and from the "
                "random numbers of python, numpy and torch on the CPU; or give the data set itself, with shuffle=True.",
            )

    def _goes_to(self, state: dict[str, Any], sampler: Any) -> bool:
        """Begin the saved epoch and draw up to the place; returns whether that gave what was given."""
        epoch = self._draw_epoch(state["epoch"], state["start"], sampler)
        if epoch.skip(state["batches"]) < state["batches"] or epoch.digest != state["digest"]:
            return False
        self._epoch, self._given, self._digest = state["epoch"], state["batches"], state["digest"]
        self._tasks.drawing = epoch if state["batches"] else None
        return True

    def _replays(self, state: dict[str, Any], pristine: Any) -> bool:
        """Draw every epoch from the first on; returns whether that gave what was given."""
        digest = drawing.START
        for number in range(state["epoch"]):
            epoch = self._draw_epoch(number, digest, pristine if number == 0 else None)
            if epoch.skip() == 0:
                return False
            digest = epoch.digest
        pristine = pristine if state["epoch"] == 0 else None
        return digest == state["start"] and self._goes_to(state, pristine)


def _ids(indices: tuple[Any, ...]) -> tuple[int | str, ...]:
    flat = list[int | str]()
    for each in map(drawing.plain, indices):
        many = each if isinstance(each, list) else [each]
        flat += [value if isinstance(value, int | str) else repr(value) for value in many]
    return tuple(flat)
