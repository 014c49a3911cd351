"""Colours by arithmetic: contrast on their ground, and lines that stay apart for the colour-blind."""

from itertools import combinations

import numpy as np
import pytest
from numpy.typing import NDArray

from trainhooks.views.theme import THEMES, Theme

Colour = NDArray[np.float64]

# Viénot, Brettel and Mollon (1999) for the first two; Machado, Oliveira and Fernandes (2009), severity 1, for the last.
# All on linear RGB.
BLINDNESS = {
    "none": np.eye(3),
    "protanopia": np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]]),
    "deuteranopia": np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]]),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear(colour: str) -> Colour:
    values = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, contrast ratio."""
    light, dark = sorted((float(linear(each) @ [0.2126, 0.7152, 0.0722]) for each in (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def lab(rgb: Colour) -> Colour:
    """CIE L*a*b* under D65 of linear RGB."""
    matrix = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = matrix @ np.clip(rgb, 0, 1) / np.array([0.9505, 1.0, 1.089])
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * root[1] - 16, 500 * (root[0] - root[1]), 200 * (root[1] - root[2])])


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_text_and_lines_stand_out(theme: Theme) -> None:
    assert contrast(theme.text, theme.back) >= 7
    assert contrast(theme.faint, theme.back) >= 4.5
    assert min(contrast(line, theme.back) for line in theme.lines) >= 3
    assert len({theme.back, theme.text, theme.faint, theme.grid, *theme.lines}) == 8


@pytest.mark.parametrize("blindness", BLINDNESS)
@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_lines_are_distinguished(theme: Theme, blindness: str) -> None:
    """A difference of 2.3 is just noticeable side by side (Mahy, 1994); thin lines in one chart want far more."""
    seen = [lab(BLINDNESS[blindness] @ linear(line)) for line in theme.lines]
    assert min(float(np.linalg.norm(one - other)) for one, other in combinations(seen, 2)) >= 14
