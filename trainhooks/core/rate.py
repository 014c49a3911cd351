"""How long a step takes now, from recent steps: slow starts, sleep and one-off stalls do not count, habits do."""

from collections import deque
from collections.abc import Sequence
from itertools import pairwise
from statistics import fmean, median

_KEPT = 512
_BLOCK = 16
_WARM_UP = 16
"""Steps at an attempt's beginning that are forgotten once two blocks of later ones are there."""
_SLOW = 1.5
"""Times the median: a step that belongs to the warm-up still."""
_SIMILAR = 0.25
"""An earlier block belongs to the same regime while its median differs by less than this part."""
_STALL = 8.0
"""A step this many times longer than the median is a stall."""
_HABIT = 5
"""So many separate stalls are no accident (an evaluation inside the loop, say): they count."""


class StepRate:
    """Recent steps of this attempt: their seconds of work, without checkpoints, evaluations and pauses."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_KEPT)
        self._last: tuple[int, float] | None = None
        self._is_warm = False

    def tick(self, steps: int, working_seconds: float) -> None:
        """Note that `steps` are finished after `working_seconds` of work in this attempt.

        The first note of a step counts. If steps go back, the rate continues from there.
        """
        if self._last is not None and steps >= self._last[0]:
            count = steps - self._last[0]
            if count == 0:
                return
            each = max(0.0, working_seconds - self._last[1]) / count
            self._recent.extend([each] * min(count, _KEPT))
            if not self._is_warm and len(self._recent) >= _WARM_UP + 2 * _BLOCK:
                self._is_warm = True
                self._forget_warm_up()
        self._last = (steps, working_seconds)

    def _forget_warm_up(self) -> None:
        for _ in range(_WARM_UP):
            self._recent.popleft()
        usual = median(self._recent)
        while self._recent[0] > _SLOW * usual:  # it lasts longer
            self._recent.popleft()

    def seconds_per_step(self) -> float | None:
        """Return what a step takes now, or None before the second one."""
        return typical(self._recent) if self._recent else None


def typical(seconds: Sequence[float]) -> float:
    """Return the mean of the latest steps that are alike, oldest first in `seconds`.

    Blocks of 16 are taken from the end as long as they are like those taken already.
    """
    steps = list(seconds)
    taken = steps[-_BLOCK:]
    at = len(steps) - _BLOCK
    while at > 0:
        block = steps[max(0, at - _BLOCK) : at]
        usual = median(taken[-2 * _BLOCK :])
        if abs(median(block) - usual) > _SIMILAR * usual:
            break
        taken = block + taken
        at -= _BLOCK
    return fmean(_without_stalls(taken))


def _without_stalls(steps: list[float]) -> list[float]:
    limit = _STALL * median(steps)
    is_stall = [each > limit for each in steps]
    separate = sum(here and not before for before, here in pairwise([False, *is_stall]))
    if separate >= _HABIT or not any(is_stall):
        return steps
    return [each for each in steps if each <= limit]
