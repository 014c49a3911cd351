"""Which names have been seen of late: what a cache lets in only at its second sight (TinyLFU's doorkeeper).

A run over many distinct questions would else push everything through the caches, where each entry takes the place of
one that nobody asks for again either, in memory that the processor has to fetch: a sixth of a hit on disk.
"""

from collections.abc import Hashable

NAMES = 16_384
"""So many distinct names are remembered, then all are forgotten."""
_MARKS_A_NAME = 8


class Sightings:
    """A byte a name, by its hash: at most one name in eight is taken for another one, and let in too early."""

    def __init__(self) -> None:
        self._marks = bytearray(NAMES * _MARKS_A_NAME)
        self._left = NAMES

    def is_second(self, name: Hashable) -> bool:
        """Note a sight; return whether it is not the first."""
        place = hash(name) % len(self._marks)
        if self._marks[place]:
            return True
        if not self._left:
            self._marks = bytearray(len(self._marks))
            self._left = NAMES
        self._marks[place] = 1
        self._left -= 1
        return False
