"""A column of a run as a line on a screen: a thousand points of a million, each spike kept, a running mean over it."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainhooks.views.board import Series

MAX_POINTS = 1_000
"""A line on screen has no more: above it, each stretch is drawn by its least and its greatest value."""
_SMOOTH_ABOVE = 60
_SMOOTH_SHARE = 0.02

Numbers = NDArray[np.float64]


def line(label: str, x: Numbers, y: Numbers, *, smooth: bool) -> Series:
    """Return a series of finite x (ascending) and y, thinned; with a running mean where asked and worth it."""
    xs, ys = thin(x, y)
    if not smooth or len(y) <= _SMOOTH_ABOVE:
        return Series(label=label, x=xs.tolist(), y=ys.tolist())
    # Centred: a mean of the past alone lags behind a falling loss and seems to say that it is worse than it is.
    window = max(3, int(len(y) * _SMOOTH_SHARE))
    mean = pd.Series(y).rolling(window, center=True, min_periods=1).mean().to_numpy()
    smooth_x, smooth_y = thin(x, mean)
    return Series(label=label, x=xs.tolist(), y=ys.tolist(), smooth_x=smooth_x.tolist(), smooth=smooth_y.tolist())


def thin(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """Return at most MAX_POINTS points with the first, the last, and the extremes of each of equally long stretches."""
    if len(y) <= MAX_POINTS:
        return x, y
    stretches = (MAX_POINTS - 2) // 2
    length = -(-len(y) // stretches)
    starts = np.arange(0, len(y), length)
    padded = np.full(len(starts) * length, y[-1])
    padded[: len(y)] = y
    table = padded.reshape(len(starts), length)
    at = np.concatenate(([0, len(y) - 1], starts + table.argmin(axis=1), starts + table.argmax(axis=1)))
    at = np.unique(np.minimum(at, len(y) - 1))
    return x[at], y[at]
