"""Which checkpoints may go. Pure: the files are somebody else's."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

from trainhooks.core.argument import whole, wrong
from trainhooks.core.direction import Mode, mode_of

PINNED = "pinned"
"""The tag of checkpoints that are never deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Best:
    """Keep the checkpoints with the `count` best values of `metric`.

    A checkpoint has the value that was measured last, so those that come after an evaluation, up to the next one, have
    its value too: of equal values the first step's is the one that was measured. While no checkpoint has the metric,
    none is deleted.

    Raises:
        ConfigInvalid: an unknown mode, no metric's name, or a count below 1.
    """

    metric: str
    count: int = 1
    mode: Mode | str | None = None
    """`min` or `max`; None: by the metric's name, an accuracy rises and a loss falls."""

    def __post_init__(self) -> None:
        if not isinstance(self.metric, str) or not self.metric:
            raise wrong("Best(metric=)", self.metric, "the name of a metric, such as 'val_loss'")
        whole("Best(count=)", self.count, least=1)
        object.__setattr__(self, "mode", mode_of(self.mode, self.metric))


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is kept. A checkpoint stays while any of these rules holds it."""

    keep_last: int = 3
    """The newest ones; at least 2, so that a damaged newest one has something to fall back to."""
    keep_best: Best | None = None
    keep_every_steps: int | None = None
    """Those at multiples of this many steps."""
    keep_tags: frozenset[str] = field(default=frozenset())
    """Those that carry one of these tags; `pinned` always counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What the rules look at in one checkpoint."""

    serial: int
    step: int
    metrics: dict[str, float]
    tags: frozenset[str]


def doomed(candidates: Iterable[Candidate], rules: Retention) -> list[int]:
    """Return the serials of the checkpoints that no rule holds, oldest first."""
    ordered = sorted(candidates, key=lambda each: each.serial)
    if rules.keep_best is not None and not is_measured(rules.keep_best.metric, ordered):
        return []  # the best one is among them, and nothing says which
    held = _last(ordered, rules.keep_last) | _best(ordered, rules.keep_best)
    kept_tags = rules.keep_tags | {PINNED}
    for each in ordered:
        is_mark = rules.keep_every_steps is not None and each.step % rules.keep_every_steps == 0
        if each.tags & kept_tags or (is_mark and not _is_repeated(each, ordered)):
            held.add(each.serial)
    return [each.serial for each in ordered if each.serial not in held]


def is_measured(metric: str, candidates: Iterable[Candidate]) -> bool:
    """Whether a checkpoint has a value of a metric."""
    return any(not math.isnan(each.metrics.get(metric, math.nan)) for each in candidates)


def _last(ordered: list[Candidate], count: int) -> set[int]:
    """A step that was saved again counts once, by its newest checkpoint."""
    newest_of_step = {each.step: each.serial for each in ordered}
    return set(sorted(newest_of_step.values())[-count:])


def _best(ordered: list[Candidate], best: Best | None) -> set[int]:
    if best is None:
        return set()
    first_of_value: dict[float, Candidate] = {}
    for each in ordered:
        value = each.metrics.get(best.metric)
        if value is not None and not math.isnan(value):
            known = first_of_value.get(value)
            if known is None or each.step <= known.step:
                first_of_value[value] = each
    ranked = sorted(first_of_value, reverse=best.mode is Mode.MAX)
    return {first_of_value[value].serial for value in ranked[: best.count]}


def _is_repeated(candidate: Candidate, ordered: list[Candidate]) -> bool:
    return any(other.step == candidate.step and other.serial > candidate.serial for other in ordered)
