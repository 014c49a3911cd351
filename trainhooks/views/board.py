"""What a dashboard consists of before it is drawn: series, panels, the board. No tables here, no drawing."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One line of a panel: x and y of equal length, x ascending, y without gaps."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    smooth: Sequence[float] | None = None
    """The running mean at `smooth_x`, drawn over the single values, which are then faint."""
    smooth_x: Sequence[float] | None = None
    caption: str | None = None
    """Legend text in place of the label and the last value: `4.2 min left`."""

    @property
    def last(self) -> float:
        """The newest recorded value, not smoothed."""
        return self.y[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A threshold: drawn as a horizontal line, with its meaning beside it."""

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
    """Text in place of a chart without data."""
    best_at: float | None = None
    """Where on the x axis the best value lies, if this panel marks it."""
    is_log: bool = False
    limit: Limit | None = None
    least_top: float | None = None
    """The y axis covers at least 0 to this value, so that negligible values look small."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """A whole dashboard."""

    title: str
    subtitle: str
    """State, time, progress."""
    config: str = ""
    """The settings in one line."""
    absent: tuple[str, ...] = ()
    """Titles of panels left out because nothing was recorded for them."""
    panels: tuple[Panel, ...]
    best: str | None = None
    """Legend text of the mark at the best row."""
    resumes: tuple[float, ...] = ()
    """Steps at which a later attempt resumed."""
    rewinds: tuple[tuple[float, float], ...] = ()
    """(from, to) in steps: ranges that were trained twice."""


def number(value: float) -> str:
    """Format a number for a person: four digits, thousands separated."""
    return f"{value:,.0f}" if 1_000 <= abs(value) < 10_000_000 else f"{value:.4g}"
