"""What a measurement comes to: a figure beside its goal."""

from dataclasses import dataclass, field
from enum import StrEnum
from statistics import median
from typing import Any


class Verdict(StrEnum):
    """How a figure stands to its goal."""

    MET = "met"
    MISSED = "missed"
    REPORTED = "-"
    """There is no goal for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One row of the table."""

    work: str
    figure: str
    """With its unit."""
    goal: str = ""
    reference: str = ""
    ratio: float | None = None
    """To the reference, the median over pairs taken one after the other."""
    ratios: tuple[float, ...] = ()
    cpu: str = ""
    """CPU time a request, and the reference's."""
    verdict: Verdict = Verdict.REPORTED
    data: dict[str, Any] = field(default_factory=dict)
    """Everything that was measured, for the result file."""


def judged(is_met: bool) -> Verdict:
    """Return the verdict on a goal."""
    return Verdict.MET if is_met else Verdict.MISSED


def middle(values: list[float]) -> float:
    """Return the median."""
    return float(median(values))
