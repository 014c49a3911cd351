"""A compact set of call names: one bit per call, so a log of a million calls takes about 130 KB of memory."""

from kdproxy.core.models import LineName

_BITS = 4_096


class CallSet:
    """Names of lines whose numbers are mostly close together."""

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
