"""A rehearsal: what a started command is to do, and what its records say of killing and resuming it. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from trainhooks.core import row as rows
from trainhooks.core.certificate import DATA, DIGESTS, LOSS, PARAMETERS, Verdict
from trainhooks.core.difference import Difference
from trainhooks.core.replay import differences, facts_of

VARIABLE = "TRAINHOOKS_REHEARSAL"
"""The environment variable that holds a plan."""
_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one start of the command is to do."""

    directory: str
    """Holds everything that trainhooks writes of this run, whatever output directory the script names."""
    steps: int
    """The process ends when so many are finished."""
    save_at: int
    """A checkpoint is begun when so many are."""
    kill_at: int | None = None
    """The process kills itself when so many are, once; None: it is the reference."""

    def encode(self) -> str:
        """Return the variable's text."""
        return json.dumps({"v": _VERSION, **asdict(self)})


def decode(text: str) -> Plan:
    """Read the variable's text.

    Raises:
        ValueError: it is no plan, or one of another release.
    """
    members = json.loads(text)
    if not isinstance(members, dict) or members.pop("v", None) != _VERSION:
        raise ValueError("another version")
    try:
        return Plan(**members)
    except TypeError as error:
        raise ValueError(str(error)) from error


class Result(StrEnum):
    """What a rehearsal has shown."""

    EXACT = "exact"
    DIFFERS = "differs"
    UNKNOWN = "could not compare"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The result and what it rests on."""

    result: Result
    why: str = ""
    """Of `could not compare`: the reason."""
    step: int | None = None
    """The first that differs."""
    difference: str | None = None
    """What does, with both values."""
    compared: tuple[str, ...] = ()
    """What was compared in the steps after the resume."""
    first: int | None = None
    last: int | None = None
    """The steps that were compared."""
    note: str = ""

    def __str__(self) -> str:
        """One line."""
        where = f"steps {self.first} to {self.last} after the resume: {', '.join(self.compared)}"
        match self.result:
            case Result.UNKNOWN:
                said = f"could not compare: {self.why}"
            case Result.DIFFERS:
                said = f"differs at step {self.step} in {self.difference}"
            case Result.EXACT:
                said = f"exact ({where})"
        return f"rehearsal: {said}{f'. {self.note}' if self.note else ''}"


def judge(
    killed: Iterable[Mapping[str, Any]],
    reference: Iterable[Mapping[str, Any]],
    certificate: Mapping[str, Any] | None = None,
) -> Outcome:
    """Compare the steps after the resume with those of an uninterrupted run.

    Where two starts differ before anything was killed (no seed), the reference proves nothing: then the steps that
    the killed process had done beyond the checkpoint are what is compared with.

    Args:
        killed: lines of the run that was killed and resumed, superseded ones too.
        reference: lines of the other one.
        certificate: what the resumed attempt said of itself; see `trainhooks.core.certificate`.
    """
    attempts = _by_attempt(killed)
    whole = {step: _as_of_another_start(row) for step, row in _by_attempt(reference).get(1, {}).items()}
    if len(attempts) < 2:
        return Outcome(result=Result.UNKNOWN, why="no step was recorded after the resume")
    before, after = attempts[min(attempts)], attempts[max(attempts)]
    if (certificate or {}).get("verdict") == Verdict.DIVERGED and (certificate or {}).get("difference"):
        assert certificate is not None
        return Outcome(result=Result.DIFFERS, step=certificate["first_step"], difference=certificate["difference"])
    unlike = _first_difference(before, whole)
    note = ""
    if unlike is not None:
        note = (
            f"Two starts of the command differ at step {unlike[0]} ({unlike[1]}) with no kill between them, as without"
            " a seed: so only steps that the killed process had done are compared"
        )
    expected = {**({} if unlike is not None else whole), **before}
    found = _first_difference(expected, after)
    if found is not None:
        return Outcome(result=Result.DIFFERS, step=found[0], difference=str(found[1]), note=note)
    both = sorted(step for step in expected.keys() & after.keys() if facts_of(expected[step]) and facts_of(after[step]))
    facts = {name: None for step in both for name in facts_of(expected[step]) if name in facts_of(after[step])}
    if not {LOSS, PARAMETERS} & facts.keys():
        why = "neither a loss nor parameters were recorded in a step that both have"
        return Outcome(result=Result.UNKNOWN, why=why if both else "there is no step that both have", note=note)
    if DATA not in facts:
        note = f"{note}. " * bool(note) + "Batches were not compared: steps() does not drive the loop"
    return Outcome(result=Result.EXACT, compared=tuple(facts), first=both[0], last=both[-1], note=note)


def _as_of_another_start(row: Mapping[str, Any]) -> dict[str, Any]:
    """Leave the random numbers out: a script seeds the generators that it uses, and there are others."""
    return {**row, DIGESTS: {name: each for name, each in (row.get(DIGESTS) or {}).items() if name != "random"}}


def _first_difference(
    one: Mapping[int, Mapping[str, Any]], other: Mapping[int, Mapping[str, Any]]
) -> tuple[int, Difference] | None:
    for step in sorted(one.keys() & other.keys()):
        for difference in differences(one[step], other[step]).values():
            return step, difference
    return None


def _by_attempt(lines: Iterable[Mapping[str, Any]]) -> dict[int, dict[int, dict[str, Any]]]:
    """Return each attempt's rows by step."""
    found: dict[int, list[Mapping[str, Any]]] = {}
    for line in lines:
        if "kind" not in line:
            found.setdefault(line["attempt"], []).append(line)
    return {attempt: {row["step"]: row for row in rows.settle(each)} for attempt, each in found.items()}
