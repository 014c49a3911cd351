"""Remembers recently seen names, so that a cache admits a name only on its second use (TinyLFU's doorkeeper).

Otherwise a run over many distinct questions would fill the caches with entries that are never used again, and their
memory has to be fetched by the processor: a sixth of a hit on disk.
"""

from collections.abc import Hashable

NAMES = 16_384
"""Number of distinct names that are remembered before all are forgotten."""
_MARKS_A_NAME = 8


class Sightings:
    """One byte per name, by its hash: at most one name in eight collides, and is admitted too early."""

    def __init__(self) -> None:
        self._marks = bytearray(NAMES * _MARKS_A_NAME)
        self._left = NAMES

    def is_second(self, name: Hashable) -> bool:
        """Note a use; return whether the name was seen before."""
        place = hash(name) % len(self._marks)
        if self._marks[place]:
            return True
        if not self._left:
            self._marks = bytearray(len(self._marks))
            self._left = NAMES
        self._marks[place] = 1
        self._left -= 1
        return False
