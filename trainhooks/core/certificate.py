"""The resume certificate: what a resumed attempt is known to have in common with the one before it.

It rests on what is there anyway, so that nothing is run or loaded for it. Before the first step: the restored objects
against the checkpoint, the first batch's ids against those that the checkpoint names, the random numbers. Then, for
the steps that an earlier attempt recorded, the batch (which samples, and what was in them), random numbers, loss,
learning rate and the parameters after the step. Of a loop that brings its own loader it is the recorded numbers alone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from typing import Any

DIGESTS = "replay"
"""Member of a row that holds its digests."""
BEGUN = "begun"
"""The event that holds the digests of the first batch after a save, before its step has run."""
STATE, SAMPLES, IDS = "state", "samples", "batch ids"
DATA, RANDOM, STREAMS = "batch", "random numbers", "other streams"
LOSS, RATE, PARAMETERS = "loss", "learning rate", "parameters"
FIELDS = (STATE, SAMPLES, IDS, DATA, RANDOM, STREAMS, LOSS, RATE, PARAMETERS)
"""In the order in which one follows from the other."""
RESULTS = frozenset({LOSS, PARAMETERS})
"""What other kernels or another machine change, too."""
_ENOUGH_STEPS = 2
_HINTS = {
    STATE: "An object did not take all that was saved of it, or was changed since the session opened: look at its"
    " load_state_dict(), and at what the script loads, builds or sets before steps().",
    IDS: "Stop before more is trained: the loader is not where the run was. Give the data, order and options of the"
    " run; trainhooks verify checks the checkpoint.",
    DATA: "Stop before more is trained: the same samples hold something else. Look for data that was shuffled, split or"
    " tokenised anew, and for augmentation with a generator of its own.",
    RANDOM: "Something draws or seeds random numbers between the resume and the first step: do that before the session"
    " is opened.",
    STREAMS: "A named stream or an evaluation gives other samples than it did: give it the run's data and options.",
    LOSS: "With equal data, other kernels, another GPU, number of threads or precision do this. On the same machine:"
    " something in the loop is in no checkpoint.",
    RATE: "The schedule is not where it was: give the scheduler in state=, and step it as the run did.",
    PARAMETERS: "The update differs: an optimizer, its master weights or a scaler that is not in state=, or other"
    " kernels.",
}


class Verdict(StrEnum):
    """What a resume showed."""

    EXACT = "exact"
    """Two steps, or one with the parameters after it, came out to the bit as they were recorded."""
    AGREES = "no difference found"
    """All that could be compared is the same, and that is less than `exact` needs."""
    NUMERICS = "same data, numerics differ"
    """Batches and random numbers are the same, the loss is not: other kernels, another machine, a changed model."""
    DIVERGED = "diverged"
    NOTHING = "nothing to compare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """The verdict and what it rests on."""

    verdict: Verdict
    from_step: int
    """Where the attempt resumed."""
    compared_steps: int
    recorded_steps: int
    """Steps that earlier attempts had recorded from there on."""
    first_step: int | None = None
    """The first that differed."""
    field: str | None = None
    """What differed in it: one of `FIELDS`."""
    difference: str | None = None
    """The thing that differs, with both values."""
    compared: tuple[str, ...] = ()
    """What could be compared in steps: of `FIELDS`, those that both attempts recorded."""
    at_start: tuple[str, ...] = ()
    """What was compared before the first step."""
    samples: str | None = None
    """Why the teacher's samples may be others; None: they are the same, or come from no run."""

    def __str__(self) -> str:
        """One line: what differs and what to do, or what was compared."""
        said = f"resumed at step {self.from_step}: {self.verdict}"
        if self.first_step is not None:
            what = self.field if self.difference is None else self.difference
            said += f", first at step {self.first_step}: {what}"
        said += f" ({rests})" if (rests := self._rests()) else ""
        hint = _HINTS.get(self.field or "") if self.difference is not None else None
        said = said if hint is None else f"{said}. {hint}"
        return said if self.samples is None else f"{said}. The teacher's samples are not exact: {self.samples}"

    def _rests(self) -> str:
        if self.verdict is Verdict.NOTHING and not self.recorded_steps:
            return ""
        parts = [", ".join(self.at_start)] if self.at_start else []
        if self.recorded_steps:
            by = "" if DATA in self.compared or not self.compared else f", by {' and '.join(self.compared)} alone"
            parts.append(f"{self.compared_steps} of {self.recorded_steps} recorded steps compared{by}")
        if self.verdict is Verdict.AGREES and LOSS not in self.compared:
            parts.append("no loss recorded")
        return "; ".join(parts)


def members(certificate: Certificate) -> dict[str, Any]:
    """Return what session.json says of it."""
    return {name: value for name, value in asdict(certificate).items() if value is not None and value != ()}


def describe(members: Mapping[str, Any]) -> str:
    """Return the line for the keys in session.json."""
    known = {each.name for each in fields(Certificate)}
    given = {name: value for name, value in members.items() if name in known}
    lists = {name: tuple(given.get(name, ())) for name in ("compared", "at_start")}
    return str(Certificate(**given | lists))


def verdict_of(
    *,
    seen: Mapping[int, set[str]],
    at_start: tuple[str, ...],
    is_different: bool,
    is_fatal: bool,
    has_same_samples: bool = True,
) -> Verdict:
    """Return the word for what was compared.

    Args:
        seen: what could be compared, by step.
        at_start: what was compared before the first step.
        is_different, is_fatal: whether anything differs, and whether more than numerics do.
        has_same_samples: whether nothing says that the teacher's samples may be others.
    """
    if is_fatal:
        return Verdict.DIVERGED
    if is_different:
        return Verdict.NUMERICS
    if not seen and not at_start:
        return Verdict.NOTHING
    measured = [facts for facts in seen.values() if LOSS in facts]
    is_enough = len(measured) >= _ENOUGH_STEPS or any(PARAMETERS in facts for facts in seen.values())
    return Verdict.EXACT if is_enough and has_same_samples else Verdict.AGREES
