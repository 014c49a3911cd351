"""A set of calls' names in little memory: a bit a call, so that a log of a million calls is read in about 130 KB."""

from kdproxy.core.models import LineName

_BITS = 4_096


class CallSet:
    """Names of lines, most of whose numbers lie close together."""

    def __init__(self) -> None:
        self._words: dict[tuple[str, int], int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, name: LineName) -> bool:
        block, bit = divmod(name.seq, _BITS)
        return bool(self._words.get((name.origin, block), 0) >> bit & 1)

    def add(self, name: LineName) -> bool:
        """Add a name; return whether it is new."""
        block, bit = divmod(name.seq, _BITS)
        place = (name.origin, block)
        word = self._words.get(place, 0)
        if word >> bit & 1:
            return False
        self._words[place] = word | 1 << bit
        self._count += 1
        return True
