"""The reference pictures: `python tests/trainhooks/views/reference.py` draws them again; look at each afterwards.

They are kept small, in 256 colours. A fresh picture is compared by the means of squares, in each of red, green and blue
(0 to 255), so that what one FreeType smooths otherwise than another does not count, and a line, a mark or a word does.
Within the axes squares of 8 pixels, outside, where text is, of 16. Measured:

- the same build: at most 6 within, 3 outside
- all text with another hinting, more than a release of FreeType changes: 25 within, 28 outside; 0.4 % of the squares
  within over 8, 1.4 % of those outside over 12
- a best mark gone: 52 within; a dotted line gone: 2.6 % over 8; the title gone: 64 outside; the best not named in the
  key: 33 outside
"""

import functools
import io
import math
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))
import boards

from trainhooks.views import chart
from trainhooks.views.board import Board
from trainhooks.views.theme import THEMES

FOLDER = Path(__file__).parent / "reference"
DPI = 64
MOST_BYTES = 60_000
PICTURES = {
    "six-light": (boards.six, "light"),
    "six-dark": (boards.six, "dark"),
    "ten-light": (boards.ten, "light"),
    "ten-dark": (boards.ten, "dark"),
    "degraded-light": (boards.degraded, "light"),
    "degraded-dark": (boards.degraded, "dark"),
    "stopped-light": (boards.stopped, "light"),
    "stopped-dark": (boards.stopped, "dark"),
}
_STRIDE = 4
_WITHIN, _OUTSIDE = 8, 16

Means = NDArray[np.float64]


def picture(board: Board, theme: str) -> Image.Image:
    return Image.open(io.BytesIO(chart.png(board, theme=theme, dpi=DPI))).convert("RGB")


def means(image: Image.Image, pixels: int) -> Means:
    """Return the means of squares of so many pixels, each four on: rows, columns, colours, from 0 to 255."""
    colours = np.asarray(image.convert("RGB"), dtype=float)
    rows, columns = (size // _STRIDE for size in colours.shape[:2])
    cut = colours[: rows * _STRIDE, : columns * _STRIDE].reshape(rows, _STRIDE, columns, _STRIDE, 3).mean(axis=(1, 3))
    side = pixels // _STRIDE
    found: Means = np.lib.stride_tricks.sliding_window_view(cut, (side, side), axis=(0, 1)).mean(axis=(-1, -2))
    return found


def differences(name: str, fresh: Image.Image) -> tuple[Means, Means]:
    """Return how far each square is from the reference's: (within the axes, outside)."""
    fine, coarse = (
        np.abs(means(fresh, pixels) - means(kept(name), pixels)).max(axis=2) for pixels in (_WITHIN, _OUTSIDE)
    )
    return fine[_within(name, fine.shape)], coarse[~_within(name, coarse.shape)]


@functools.cache
def _within(name: str, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    board, theme = PICTURES[name]
    figure = chart.draw(board(), THEMES[theme])
    width, height = figure.get_size_inches() * DPI / _STRIDE
    mask = np.zeros(shape, bool)
    for axes in figure.axes:
        at = axes.get_position()
        mask[
            int((1 - at.y1) * height) : math.ceil((1 - at.y0) * height),
            int(at.x0 * width) : math.ceil(at.x1 * width),
        ] = True
    return mask


def complaints(name: str, fresh: Image.Image) -> list[str]:
    """Say what is not as in the reference picture; nothing where a person would see no difference."""
    if fresh.size != kept(name).size:
        return [f"the picture is {fresh.size} and was {kept(name).size}"]
    within, outside = differences(name, fresh)
    shares = float((within > 8).mean()), float((outside > 12).mean())
    checks = {
        f"a square within the axes differs by {within.max():.0f}": within.max() > 45,
        f"{shares[0]:.1%} of the squares within the axes differ": shares[0] > 0.01,
        f"a square outside the axes differs by {outside.max():.0f}": outside.max() > 30,
        f"{shares[1]:.1%} of the squares outside the axes differ": shares[1] > 0.016,
    }
    return [complaint for complaint, is_wrong in checks.items() if is_wrong]


def kept(name: str) -> Image.Image:
    return Image.open(FOLDER / f"{name}.png").convert("RGB")


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, (board, theme) in PICTURES.items():
        path = FOLDER / f"{name}.png"
        picture(board(), theme).quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
