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
    cpu_microseconds: float | None = None
    """CPU time a request, the median."""
    reference_cpu_microseconds: float | None = None
    cpu_ratio: float | None = None
    """The median over pairs, as above: it holds also where others use the machine."""
    measurement: str = ""
    """Name of the measurement that it is a row of."""
    verdict: Verdict = Verdict.REPORTED
    data: dict[str, Any] = field(default_factory=dict)
    """Everything that was measured, for the result file."""

    @property
    def cpu(self) -> str:
        """CPU time a request, and the reference's in brackets."""
        if self.cpu_microseconds is None or self.reference_cpu_microseconds is None:
            return ""
        return f"{self.cpu_microseconds:.0f} ({self.reference_cpu_microseconds:.0f})"


def judged(is_met: bool) -> Verdict:
    """Return the verdict on a goal."""
    return Verdict.MET if is_met else Verdict.MISSED


def middle(values: list[float]) -> float:
    """Return the median."""
    return float(median(values))
