"""Colours, light and dark. Lines follow Okabe and Ito (2008), with lightness adjusted to the background.

Text has a contrast of 4.5 to 1 and lines of 3 to 1 (WCAG 2.2, 1.4.3 and 1.4.11); the tests compute both, and the
distance between lines for the three kinds of colour blindness.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Theme:
    """One set of colours, as #rrggbb. No two are equal in one theme, so that the page can make them variables."""

    back: str
    text: str
    faint: str
    grid: str
    lines: tuple[str, str, str, str]
    shade: float
    """Opacity of a range that was trained twice."""
    raw: float
    """Opacity of single values behind their running mean."""


THEMES: Mapping[str, Theme] = {
    "light": Theme(
        back="#ffffff",
        text="#1a1a1a",
        faint="#636363",
        grid="#e0e0e0",
        lines=("#0072b2", "#d55e00", "#009470", "#b8609a"),
        shade=0.22,
        raw=0.4,
    ),
    "dark": Theme(
        back="#16181d",
        text="#ececec",
        faint="#a8acb3",
        grid="#3a3f49",
        lines=("#56b4e9", "#e69f00", "#009e73", "#e6a5c9"),
        shade=0.3,
        raw=0.5,
    ),
}
