"""Numbers as they are reckoned with."""

import math


def as_float(value: float) -> float:
    """Return a number as a float: an integer may be beyond every one of them."""
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
