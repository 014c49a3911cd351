"""Where the loss is going: a straight line through its last values, against their noise."""

import math
from collections.abc import Sequence
from enum import StrEnum

WINDOW = 100
"""How many recent losses are looked at."""
_ENOUGH = 10
_SIGNIFICANT = 2.0
"""Standard errors that a slope must have to be believed."""


class Trend(StrEnum):
    """What recent losses do."""

    UNKNOWN = "unknown"
    """Too few of them."""
    IMPROVING = "improving"
    STABLE = "stable"
    WORSENING = "worsening"
    NOT_FINITE = "not_finite"
    """One of the last few is NaN or infinite."""


def trend(losses: Sequence[float]) -> Trend:
    """Judge losses, oldest first, by the least-squares slope of the last `WINDOW` and its standard error."""
    recent = losses[-WINDOW:]
    if not all(math.isfinite(loss) for loss in recent[-_ENOUGH:]):
        return Trend.NOT_FINITE
    recent = [loss for loss in recent if math.isfinite(loss)]
    count = len(recent)
    if count < _ENOUGH:
        return Trend.UNKNOWN
    middle, mean = (count - 1) / 2, math.fsum(recent) / count
    spread = count * (count * count - 1) / 12  # sum of (x - middle)^2 for x = 0 .. count - 1
    slope = math.fsum((at - middle) * loss for at, loss in enumerate(recent)) / spread
    residual = math.fsum((loss - mean - slope * (at - middle)) ** 2 for at, loss in enumerate(recent))
    error = math.sqrt(residual / (count - 2) / spread)
    if abs(slope) <= max(_SIGNIFICANT * error, 1e-12 * abs(mean)):
        return Trend.STABLE
    return Trend.IMPROVING if slope < 0 else Trend.WORSENING
