"""The data of a session: its loaders, where in each the session resumes, and what is known of each batch."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from trainhooks import lineage
from trainhooks.core import seed as seeds
from trainhooks.core import upcoming
from trainhooks.core.lineage import LINEAGE, LineageEncoder
from trainhooks.errors import CheckpointFailed, ConfigInvalid, PositionInvalid
from trainhooks.session.streams import TRAINING, Source, describe

if TYPE_CHECKING:
    from trainhooks.core.cursor import Productions
    from trainhooks.core.origin import Origin
    from trainhooks.core.ranks import Ranks
    from trainhooks.pytorch.data.evaluation import EvaluationLoader
    from trainhooks.pytorch.data.source import Loader

log = logging.getLogger("trainhooks")

EVALUATION = "evaluation"
"""What an evaluation's loader without a name is called; the second one `evaluation 2`."""


class Opening(NamedTuple):
    """A source on its way to a loader."""

    source: Any
    data: Source
    name: str
    evaluates: bool = False
    replaces: bool = False

    @property
    def facts_name(self) -> str:
        """What the names of its facts begin with."""
        if self.evaluates:
            return f"{EVALUATION}.{self.name}"
        return "data" if self.name == TRAINING else f"data.{self.name}"

    @property
    def facts(self) -> dict[str, str | int]:
        """What the drift check compares. Data that replaces other data is not compared: the checkpoint names it."""
        return {} if self.replaces else {f"{self.facts_name}.{fact}": each for fact, each in self.data.facts.items()}


class Stage(NamedTuple):
    """Which data a stream reads."""

    number: int
    """How often it has been replaced."""
    identity: str | None


class Feed:
    """Gives batches from the position where the session stopped.

    A training has one stream of data, or several that have names; each keeps its position. The data of an evaluation
    has none: it begins anew in each pass, and the number of the pass is kept.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.ranks: Ranks | None = None
        """The processes that train together, where they are connected."""
        self.is_evaluating = False
        """Inside an evaluation no loader becomes the training's."""
        self._streams: dict[str, Loader] = {}
        self._evaluations: dict[str, EvaluationLoader] = {}
        self._sources: dict[str, Source] = {}
        """Of every loader, by `Opening.facts_name`."""
        self._driver = TRAINING
        self._ranks = 1
        self._encoder = LineageEncoder()
        self._made_of: dict[str, Any] = {}
        self._places: dict[str, dict[str, Any]] = {}
        """Of the checkpoint, by the name of the stream."""
        self._stages: dict[str, Stage] = {}
        self._passes: dict[str, int] = {}
        self._said: set[str] = set()
        self._given: dict[str, Origin | None] = {}
        """What each stream gave last before the last checkpoint."""
        self._idle: set[str] = set()
        """Streams that gave nothing between two checkpoints, once that was said."""
        self._again: dict[str, tuple[Any, dict[str, Any] | None]] = {}
        """By the name of the stream, a batch that was taken back: it comes once more. With the place before it."""

    def resume(self, saved: Mapping[str, Any]) -> None:
        """Take over the positions of a checkpoint; a loader that is made later begins there."""
        main = saved.get("loader")  # releases before knew one stream alone
        self._places = {**({} if main is None else {TRAINING: main}), **saved.get("streams", {})}
        self._stages = {name: Stage(*each) for name, each in saved.get("stages", {}).items()}
        self._passes = dict(saved.get("passes", {}))

    def next_batches(self, rank: int) -> dict[str, Any]:
        """Return what each stream gives next, where that is known without loading it. JSON."""
        known = {name: each.upcoming() for name, each in self._streams.items()}
        for name in self._again:
            again = self._streams[name].origin
            known[name] = None if again is None else (again, True)
        return {
            name: upcoming.members(each[0], rank=rank, is_whole=each[1])
            for name, each in known.items()
            if each is not None
        }

    def close(self) -> None:
        """Let go of the loaders. Left to the garbage collector, each of their workers would be waited for 5 seconds."""
        for kept in (self._streams, self._evaluations, self._sources, self._again):
            kept.clear()

    def state(self) -> dict[str, Any]:
        """Return where each loader is, behind the batch that it gave last."""
        self._warn_of_idle()
        places = {**self._places, **{name: each.state_dict() for name, each in self._streams.items()}}
        for name, (_, before) in self._again.items():
            if before is None:
                raise CheckpointFailed(
                    "A batch was given to no loop, and its loader cannot go back: a checkpoint would leave it out.",
                    hint="Put steps() last in zip(...), or call save_checkpoint() within the loop.",
                )
            places[name] = before
        passes = {name: each.passes for name, each in self._evaluations.items()}
        return {
            "loader": places.pop(TRAINING, None),
            "streams": places,
            "stages": {name: list(each) for name, each in self._stages.items()},
            "passes": {**self._passes, **passes},
        }

    def _warn_of_idle(self) -> None:
        """Warn of a stream that has given nothing since the last checkpoint: `itertools.cycle` repeats from memory."""
        before, self._given = self._given, {name: each.origin for name, each in self._streams.items()}
        if before.get(self._driver) is self._given.get(self._driver):
            return
        for name, origin in self._given.items():
            if name != self._driver and origin is not None and before.get(name) is origin and name not in self._idle:
                self._idle.add(name)
                log.warning(
                    "the stream %r has given no batch since the last checkpoint. If itertools.cycle() repeats its"
                    " batches from memory, a resumed training gets others: begin each pass with iter(loader)",
                    name,
                )

    # -- making loaders ---------------------------------------------------------------------------------------

    def describe(
        self,
        source: Any,
        *,
        evaluates: bool = False,
        name: str | None = None,
        replaces: bool = False,
        num_workers: int = 0,
    ) -> Opening:
        """Say what a source is and what it is for, before its loader is made.

        Raises:
            ConfigInvalid: a second source, and nothing says what it is for.
        """
        data = describe(source, num_workers=num_workers)
        if evaluates or self.is_evaluating:
            return Opening(source, data, self._name_evaluation(data) if name is None else name, evaluates=True)
        opening = Opening(source, data, TRAINING if name is None else name, replaces=replaces)
        before = self._sources.get(opening.facts_name)
        if replaces and data.identity is None:
            raise _indistinguishable(data)
        if not replaces and before is not None and not data.is_same(before):
            raise _second_source(opening.name, before, data)
        return opening

    def open(self, opening: Opening, *, world: int = 1, **options: Any) -> Loader | EvaluationLoader:
        """Make the loader. Options: see `trainhooks.pytorch.data.source.make_loader`.

        Raises:
            PositionInvalid: the data is not that of the checkpoint.
        """
        loader = (self._open_evaluation if opening.evaluates else self._open_stream)(opening, world=world, **options)
        self._sources[opening.facts_name] = opening.data
        self._warn_unresumed(opening, options)
        return loader

    def _warn_unresumed(self, opening: Opening, options: Mapping[str, Any]) -> None:
        """Say which random numbers of the data's own no resume brings back."""
        from trainhooks.pytorch.data import held, source

        for problem in held.problems(
            opening.data.data,
            source.helpers_of(opening.source, options),
            keeps_its_place=source.keeps_its_place(opening.data.data, **options),
        ):
            if problem not in self._said:
                self._said.add(problem)
                log.warning("not resumed: %s", problem)

    def _open_evaluation(self, opening: Opening, **options: Any) -> EvaluationLoader:
        from trainhooks.pytorch.data.evaluation import EvaluationLoader

        name = opening.name
        before = self._evaluations.get(name)
        loader = EvaluationLoader(opening.source, seed=seeds.derive("evaluation", self.seed, name), **options)
        loader.passes = self._passes.get(name, 0) if before is None else before.passes
        self._evaluations[name] = loader
        return loader

    def _open_stream(self, opening: Opening, *, world: int, **options: Any) -> Loader:
        from trainhooks.pytorch.data.sampled import SampledLoader
        from trainhooks.pytorch.data.source import as_it_was, make_loader

        name = opening.name
        seed = self.seed if name == TRAINING else seeds.derive("stream", self.seed, name)
        loader = make_loader(opening.source, seed=seed, world=world, **options)
        if world > 1 and isinstance(loader, SampledLoader) and self.ranks is not None:
            loader.agree(self.ranks)
        place = self._place(name, opening.data, replaces=opening.replaces)
        if place is not None:
            loader = as_it_was(opening.source, loader, place, seed=seed, world=world)
            loader.load_state_dict(place)
        self._ranks, self._streams[name] = world, loader
        return loader

    def _place(self, name: str, given: Source, *, replaces: bool) -> dict[str, Any] | None:
        """Return where a loader begins; None: at its first sample."""
        stage = self._stages.get(name, Stage(0, given.identity))
        is_other = stage.identity != given.identity
        if is_other and not replaces and stage.number > 0 and name not in self._streams:
            raise PositionInvalid(
                "The checkpoint was taken after the training's data had been replaced, and this is not that data.",
                hint="Open the data that this step is to read, with replaces=True.",
            )
        if is_other and replaces:
            if name not in self._streams:
                log.warning("the data is not that of the checkpoint and replaces it: it begins at its first sample")
            self._places.pop(name, None)
            self._again.pop(name, None)
            self._stages[name] = Stage(stage.number + 1, given.identity)
            return None
        self._stages[name] = Stage(stage.number, given.identity)
        if (again := self._again.get(name)) is not None and again[1] is not None:
            del self._again[name]
            return again[1]
        before = self._streams.get(name)
        if before is not None and before.origin is not None:  # made anew in the middle, as in a notebook
            return before.state_dict()
        return self._places.get(name)

    def _name_evaluation(self, given: Source) -> str:
        number = 1
        while True:
            name = EVALUATION if number == 1 else f"{EVALUATION} {number}"
            before = self._sources.get(Opening(None, given, name, evaluates=True).facts_name)
            if before is None or before.is_same(given):
                return name
            number += 1

    # -- giving batches ---------------------------------------------------------------------------------------

    def drive_by(self, loader: Any = None) -> None:
        """Choose the stream whose batches are the steps; None: the only one, or the one without a name.

        Raises:
            ConfigInvalid: it is no stream of this training, or there are several and none is named.
        """
        if loader is not None:
            driver = next((name for name, each in self._streams.items() if each is loader), None)
            if driver is None:
                raise ConfigInvalid(
                    "steps() got a loader that does not feed this training.",
                    hint="Give one that progress.loader(data) returned; one with evaluates=True has no steps.",
                )
            self._driver = driver
        elif TRAINING in self._streams or not self._streams:
            self._driver = TRAINING
        elif len(self._streams) == 1:
            self._driver = next(iter(self._streams))
        else:
            raise ConfigInvalid(
                f"steps() has {len(self._streams)} streams to choose from: {', '.join(self._streams)}.",
                hint="Say whose batches the steps are: progress.steps(loader).",
            )

    def batches(self) -> Iterator[Any]:
        """Yield the driving stream's batches, epoch after epoch, without end."""
        if self._driver not in self._streams:
            only_evaluates = " but that of an evaluation" if self._evaluations else ""
            raise ConfigInvalid(
                f"steps() has no data{only_evaluates}.", hint="Call progress.loader(dataset, batch_size=...) before."
            )
        if self._driver in self._again:
            yield self._again.pop(self._driver)[0]
        while True:
            yield from self._streams[self._driver]

    def take_back(self, batch: Any) -> None:
        """Take back the last batch of the driving stream: it comes again."""
        self._again[self._driver] = batch, self._streams[self._driver].state_before()

    @property
    def origin(self) -> Origin | None:
        """Where the last batch of the driving stream came from."""
        driver = self._streams.get(self._driver)
        return None if driver is None else driver.origin

    def made_of(self) -> dict[str, Any]:
        """Return what the row of the step that begins says of where its batch came from; hear what the loop asks."""
        lineage.listen()
        if self.origin is None:
            return {}
        self._made_of = self._encoder.members(self.origin)
        if self._ranks > 1:
            self._made_of["ranks"] = self._ranks
        return {LINEAGE: self._made_of}

    def asked_for(self) -> dict[str, Any]:
        """Return what is to be added when the step ends: the answers that the loop itself asked for in it."""
        asked = lineage.take()
        return {LINEAGE: {**self._made_of, "asked": asked}} if asked else {}

    def productions(self) -> tuple[Productions | None, list[Productions], bool]:
        """Return who asked for samples while batches were made: of the driving stream, of the other loaders, and
        whether the last batch comes again."""
        driver = self._streams.get(self._driver)
        others = [each.productions for name, each in self._streams.items() if name != self._driver]
        others += [found for each in self._evaluations.values() if (found := each.productions) is not None]
        return None if driver is None else driver.productions, others, self._driver in self._again

    @property
    def driver(self) -> str:
        """The name of the stream whose batches are the steps."""
        return self._driver

    @property
    def keeps_random_numbers(self) -> bool:
        """Whether reading a batch draws none of the training's random numbers: a loader used as it is may."""
        driver = self._streams.get(self._driver)
        return driver is None or driver.kind != "foreign"

    def first_of(self, name: str) -> Origin | None:
        """Return where the first batch came from that a stream has given; None: it has given none, or does not know."""
        stream = self._streams.get(name)
        return None if stream is None else stream.first

    def beside(self) -> dict[str, str]:
        """Digest which samples the other streams and the evaluations gave last, by name."""
        from trainhooks.pytorch import fingerprint

        found = {name: each.origin for name, each in self._streams.items() if name != self._driver}
        last = {name or "training": fingerprint.of_ids(each) for name, each in found.items() if each is not None}
        for name, each in self._evaluations.items():
            if each.passes and each.origin is not None:
                last[f"{EVALUATION} {each.passes} of {name!r}"] = fingerprint.of_ids(each.origin)
        return last


def _indistinguishable(given: Source) -> ConfigInvalid:
    return ConfigInvalid(
        f"After a restart this {given} could not be distinguished from the data that it replaces.",
        hint="Give each its own name: loader = progress.loader(data, name='stage 2'), then progress.steps(loader).",
    )


def _second_source(name: str, before: Source, given: Source) -> ConfigInvalid:
    which = "The training" if name == TRAINING else f"The stream {name!r}"
    return ConfigInvalid(
        f"{which} already reads a {before}, and nothing says what this {given} is for.",
        hint="For an evaluation, whichever of the two it is: progress.loader(data, evaluates=True). For a second stream"
        " of training data: progress.loader(data, name='...'). For data that takes the place of the first from here on:"
        " progress.loader(data, replaces=True).",
    )
