"""What a dashboard is made of, before it is drawn: series, panels, the board. No tables here, no drawing."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a panel: equally long x and y, x ascending, y without holes."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    smooth: Sequence[float] | None = None
    """The running mean at `smooth_x`, drawn over it; the single values then stand in the background."""
    smooth_x: Sequence[float] | None = None
    told: str | None = None
    """The last value with its unit and what it is of, in place of the label and the number: `4.2 min left`."""

    @property
    def last(self) -> float:
        """The newest value as it was recorded, whatever is drawn over it."""
        return self.y[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A value that means something wherever the lines are: drawn across, with its meaning beside it."""

    value: float
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One chart."""

    title: str
    y_label: str
    """What the y axis counts, with its unit."""
    x_label: str = "step"
    series: tuple[Series, ...] = ()
    missing: str | None = None
    """What is not there, in place of a chart."""
    best_at: float | None = None
    """Where on the x axis the best value lies, if this panel marks it."""
    is_log: bool = False
    limit: Limit | None = None
    least_top: float | None = None
    """The y axis goes from 0 to this at least: smaller values are nothing, and are drawn so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A whole dashboard."""

    title: str
    subtitle: str
    """State, when, how far."""
    config: str = ""
    """The settings in one line."""
    absent: tuple[str, ...] = ()
    """Panels that were left out since nothing was recorded for them."""
    panels: tuple[Panel, ...]
    best: str | None = None
    """What the mark of the best row says."""
    resumes: tuple[float, ...] = ()
    """Steps at which a later attempt resumed."""
    rewinds: tuple[tuple[float, float], ...] = ()
    """(from, to) in steps: stretches that were trained twice."""


def number(value: float) -> str:
    """Write a number as a person reads it: four figures, thousands set apart."""
    return f"{value:,.0f}" if 1_000 <= abs(value) < 10_000_000 else f"{value:.4g}"
