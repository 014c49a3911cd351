"""Distinguishes an overload from one bad question: several questions fail in a short time. Pure."""

from collections.abc import Hashable
from dataclasses import dataclass, field

SEVERAL = 3
_SECONDS = 30.0


@dataclass(slots=True)
class Overload:
    """The questions that a server failed on of late."""

    _failed_at: dict[Hashable, float] = field(default_factory=dict)

    def upstream_failed(self, question: Hashable, now: float) -> bool:
        """Count a failure; say whether so many questions failed that it is not theirs: once, then it counts anew."""
        self._failed_at = {each: at for each, at in self._failed_at.items() if now - at < _SECONDS}
        self._failed_at[question] = now
        if len(self._failed_at) < SEVERAL:
            return False
        self._failed_at.clear()
        return True
