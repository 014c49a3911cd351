"""The comparison behind the resume certificate: facts before the first step, then rows as they come. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from trainhooks.core.certificate import (
    BEGUN,
    DATA,
    DIGESTS,
    FIELDS,
    IDS,
    LOSS,
    PARAMETERS,
    RANDOM,
    RATE,
    RESULTS,
    STREAMS,
    Certificate,
    verdict_of,
)
from trainhooks.core.difference import Difference, differ
from trainhooks.core.number import as_float

_DIGEST_NAMES = {DATA: "batch", RANDOM: "random", STREAMS: "streams", PARAMETERS: "parameters"}
_SPOKEN = {
    DATA: "the batch's content (digest)",
    RANDOM: "the random numbers before the step (digest)",
    PARAMETERS: "the parameters after the step (digest)",
}


class Replay:
    """Compares an attempt with what earlier ones saved and recorded.

    Args:
        recorded: one settled row a step, of earlier attempts; an event `begun` for a step that has no row.
        from_step: where this attempt resumes.
    """

    def __init__(self, recorded: Iterable[Mapping[str, Any]], from_step: int) -> None:
        self.from_step = from_step
        self._recorded = dict[int, dict[str, Any]]()
        self._begun = dict[int, dict[str, Any]]()
        for row in recorded:
            if row["step"] >= from_step and (facts := facts_of(row)):
                (self._begun if row.get("kind") == BEGUN else self._recorded)[row["step"]] = facts
        self._last = max(self._recorded, default=-1)
        self._at_start: dict[str, None] = {}
        self._seen: dict[int, set[str]] = {}
        self._differs: dict[int, dict[str, Difference]] = {}
        self._reached = -1
        self.inexact_samples: str | None = None
        """Why the teacher's samples may be others."""

    @property
    def is_over(self) -> bool:
        """Whether nothing that is still to come can change the verdict."""
        return self._reached > self._last or self.has_diverged

    @property
    def has_diverged(self) -> bool:
        """Whether more differs than numerics may."""
        return any(map(self._is_fatal, self._differs))

    @property
    def expects_rows(self) -> bool:
        """Whether an earlier attempt recorded steps that this one does again."""
        return self._last >= 0

    def check(self, fact: str, difference: Difference | None) -> None:
        """Take in something that was compared before the first step has run."""
        self._at_start[fact] = None
        if difference is not None:
            self._differs.setdefault(self.from_step, {}).setdefault(fact, difference)

    def begins(self, step: int, row: Mapping[str, Any]) -> None:
        """Compare the digests of a step that is about to run, where no row of it was recorded but that it began."""
        begun = self._begun.get(step) if step not in self._recorded else None
        facts = facts_of(row)
        for name in (begun or {}).keys() & facts.keys():
            assert begun is not None
            self.check(name, _differ(name, begun[name], facts[name]))

    def observe(self, step: int, row: Mapping[str, Any]) -> None:
        """Compare a row, or a part of one; once a row of a later step comes, a step is done."""
        self._reached = max(self._reached, step)
        recorded = self._recorded.get(step)
        if recorded is None:
            return
        facts = facts_of(row)
        both = recorded.keys() & facts.keys()
        if both:
            self._seen.setdefault(step, set()).update(both)
        for name in both:
            difference = _differ(name, recorded[name], facts[name])
            if difference is not None:
                self._differs.setdefault(step, {}).setdefault(name, difference)

    def certificate(self) -> Certificate:
        """Return the verdict on what was compared so far."""
        first = min(self._differs, default=None)
        field = None if first is None else next(name for name in FIELDS if name in self._differs[first])
        at_start = tuple(name for name in FIELDS if name in self._at_start)
        return Certificate(
            verdict=verdict_of(
                seen=self._seen,
                at_start=at_start,
                is_different=first is not None,
                is_fatal=self.has_diverged,
                has_same_samples=self.inexact_samples is None,
            ),
            samples=self.inexact_samples,
            from_step=self.from_step,
            compared_steps=len(self._seen),
            recorded_steps=len(self._recorded),
            first_step=first,
            field=field,
            difference=None if first is None or field is None else str(self._differs[first][field]),
            compared=tuple(name for name in FIELDS if any(name in seen for seen in self._seen.values())),
            at_start=at_start,
        )

    def _is_fatal(self, step: int) -> bool:
        """Whether more than numerics differ in a step: that the data is the same has to be seen, too."""
        differs = self._differs[step].keys()
        has_same_data = DATA in self._seen.get(step, ()) or (step == self.from_step and IDS in self._at_start)
        return not differs <= RESULTS or not has_same_data


def facts_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is compared of a row, by the names of `FIELDS`."""
    digests = row.get(DIGESTS) or {}
    facts = {name: digests.get(member) for name, member in _DIGEST_NAMES.items()}
    for name, member in ((LOSS, "loss"), (RATE, "learning_rate")):
        value = row.get(member)
        if isinstance(value, int | float | str):
            facts[name] = value if isinstance(value, str) else as_float(value)
    return {name: fact for name, fact in facts.items() if fact is not None}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Difference]:
    """Compare two rows of one step; returns what differs of what both hold, in the order of `FIELDS`."""
    one, other = facts_of(before), facts_of(after)
    return {
        name: difference
        for name in FIELDS
        if name in one and name in other and (difference := _differ(name, one[name], other[name])) is not None
    }


def _differ(name: str, before: Any, after: Any) -> Difference | None:
    if name == PARAMETERS and before.partition("@")[2] != after.partition("@")[2]:
        return None  # of parameters that are dealt out over another number of ranks, this one has others
    if name == STREAMS:
        both = before.keys() & after.keys()
        found = (differ(f"{each} (digest of its last batch)", before[each], after[each]) for each in sorted(both))
        return next((each for each in found if each is not None), None)
    return differ(_SPOKEN.get(name, name), before, after)
