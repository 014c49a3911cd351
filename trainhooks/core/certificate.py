"""The resume certificate: whether the steps that a resumed attempt does again come out as they were recorded.

Compared are the batch (which samples, and what was in them), the random numbers before the step, and the loss's bits;
of a loop that brings its own loader the loss alone.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

from trainhooks.core.number import as_float

DIGESTS = "replay"
"""Member of a row that holds its digests."""
DATA, RANDOM, LOSS = "batch", "random numbers", "loss"
_FIELDS = (DATA, RANDOM, LOSS)
"""In the order in which one follows from the other."""


class Verdict(StrEnum):
    """What a replay showed."""

    EXACT = "exact"
    NUMERICS = "same data, numerics differ"
    """Batches and random numbers are the same, the loss is not: other kernels, another machine, a changed model."""
    DIVERGED = "diverged"
    NOTHING = "nothing to compare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The verdict and what it rests on."""

    verdict: Verdict
    from_step: int
    """Where the attempt went on."""
    compared_steps: int
    recorded_steps: int
    """Steps that earlier attempts had recorded from there on."""
    first_step: int | None = None
    """The first that differed."""
    field: str | None = None
    """What differed in it: `batch`, `random numbers` or `loss`."""
    compared: tuple[str, ...] = ()
    """What could be compared: of these three, those that both attempts recorded."""

    def __str__(self) -> str:
        """One line."""
        where = f", first at step {self.first_step}: {self.field}" if self.first_step is not None else ""
        by = "" if DATA in self.compared or not self.compared else f", by {' and '.join(self.compared)} alone"
        compared = f" ({self.compared_steps} of {self.recorded_steps} recorded steps compared{by})"
        return f"resumed at step {self.from_step}: {self.verdict}{where}{compared if self.recorded_steps else ''}"


def members(certificate: Certificate) -> dict[str, Any]:
    """Return what session.json says of it."""
    return {name: value for name, value in asdict(certificate).items() if value is not None}


def told(members: Mapping[str, Any]) -> str:
    """Return the line of what session.json says."""
    known = {each.name for each in fields(Certificate)}
    given = {name: value for name, value in members.items() if name in known}
    return str(Certificate(**given | {"compared": tuple(given.get("compared", ()))}))


class Replay:
    """Compares rows with those that were recorded, as they come.

    Args:
        recorded: one settled row a step, of earlier attempts.
        from_step: where this attempt goes on.
    """

    def __init__(self, recorded: Iterable[Mapping[str, Any]], from_step: int) -> None:
        self.from_step = from_step
        self._recorded = {row["step"]: facts for row in recorded if row["step"] >= from_step and (facts := _facts(row))}
        self._last = max(self._recorded, default=-1)
        self._seen: dict[int, set[str]] = {}
        self._differs: dict[int, set[str]] = {}
        self._reached = -1

    @property
    def is_over(self) -> bool:
        """Whether nothing that is still to come can change the verdict."""
        return self._reached > self._last or any(map(self._is_fatal, self._differs))

    def observe(self, step: int, row: Mapping[str, Any]) -> None:
        """Compare a row, or a part of one; once a row of a later step comes, a step is done."""
        self._reached = max(self._reached, step)
        recorded = self._recorded.get(step)
        if recorded is None:
            return
        facts = _facts(row)
        both = recorded.keys() & facts.keys()
        if both:
            self._seen.setdefault(step, set()).update(both)
        differs = {name for name in both if recorded[name] != facts[name]}
        if differs:
            self._differs.setdefault(step, set()).update(differs)

    def certificate(self) -> Certificate:
        """Return the verdict on what was compared so far."""
        first = min(self._differs, default=None)
        field = None if first is None else next(name for name in _FIELDS if name in self._differs[first])
        if not self._seen:
            verdict = Verdict.NOTHING
        elif first is None:
            verdict = Verdict.EXACT
        elif any(map(self._is_fatal, self._differs)):
            verdict = Verdict.DIVERGED
        else:
            verdict = Verdict.NUMERICS
        return Certificate(
            verdict=verdict,
            from_step=self.from_step,
            compared_steps=len(self._seen),
            recorded_steps=len(self._recorded),
            first_step=first,
            field=field,
            compared=tuple(name for name in _FIELDS if any(name in seen for seen in self._seen.values())),
        )

    def _is_fatal(self, step: int) -> bool:
        """Whether more than numerics may differ in a step: that the data is the same has to be seen, too."""
        return self._differs[step] != {LOSS} or DATA not in self._seen[step]


def _facts(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is compared of a row. A loss is compared by its text, so that NaN equals NaN and every bit counts."""
    digests = row.get(DIGESTS) or {}
    facts = {DATA: digests.get("batch"), RANDOM: digests.get("random")}
    loss = row.get("loss")
    if isinstance(loss, int | float | str):
        facts[LOSS] = loss if isinstance(loss, str) else _spelled(as_float(loss))
    return {name: fact for name, fact in facts.items() if fact is not None}


def _spelled(loss: float) -> str:
    return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text := repr(loss), text)
