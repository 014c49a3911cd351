"""A column of a run as a line on screen: at most 1,000 points, with every spike and a running mean."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainhooks.views.board import Series

MAX_POINTS = 1_000
"""A longer line is drawn by the min and max of each stretch."""
_SMOOTH_ABOVE = 60
_SMOOTH_SHARE = 0.02

Numbers = NDArray[np.float64]


def line(label: str, x: Numbers, y: Numbers, *, smooth: bool) -> Series:
    """Return a thinned series of finite x (ascending) and y, with a running mean if `smooth` and long enough."""
    xs, ys = thin(x, y)
    if not smooth or len(y) <= _SMOOTH_ABOVE:
        return Series(label=label, x=xs.tolist(), y=ys.tolist())
    # Centred: a mean of past values alone lags behind a falling loss and makes it look worse than it is.
    window = max(3, int(len(y) * _SMOOTH_SHARE))
    mean = pd.Series(y).rolling(window, center=True, min_periods=1).mean().to_numpy()
    smooth_x, smooth_y = thin(x, mean)
    return Series(label=label, x=xs.tolist(), y=ys.tolist(), smooth_x=smooth_x.tolist(), smooth=smooth_y.tolist())


def thin(x: Numbers, y: Numbers) -> tuple[Numbers, Numbers]:
    """Return at most MAX_POINTS points: the first, the last, and the min and max of each of equally long stretches."""
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
