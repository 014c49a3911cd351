"""What `steps()` returns: an iterator that gives each `for` one of its own.

A `for` lets go of its own iterator the moment it ends, so that the session sees how the loop ended, whatever variable
or progress bar holds this one. Only `next()` on it, or a wrapper kept in a variable, still hides that.
"""

from collections.abc import Callable, Generator, Iterator
from typing import Any

_Steps = Generator[tuple[int, Any]]


class StepIterator(Iterator[tuple[int, Any]]):
    """Yields (step, batch). A second `for` over it continues where the first one ended.

    Args:
        begin: makes an iterator that continues with the session's next step.
    """

    def __init__(self, begin: Callable[[], _Steps]) -> None:
        self._begin = begin
        self._own: _Steps | None = None
        """What `next()` on this object reads."""

    def __iter__(self) -> _Steps:  # not itself: see above
        self._own = None
        return self._begin()

    def __next__(self) -> tuple[int, Any]:
        if self._own is None:
            self._own = self._begin()
        return next(self._own)

    def close(self) -> None:
        """End it, as a generator's `close()` does."""
        own, self._own = self._own or self._begin(), None
        own.close()
