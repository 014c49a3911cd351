"""Where the seconds of an attempt went. `now` comes from a monotonic clock; seconds of phases are disjoint."""

from collections.abc import Mapping
from enum import StrEnum


class Phase(StrEnum):
    """What a training is doing."""

    ACTIVE = "active"
    """Steps that are new."""
    REPLAYED = "replayed"
    """Steps done again, since the attempt that did them was cut off behind its last checkpoint."""
    CHECKPOINT = "checkpoint"
    EVALUATION = "evaluation"
    PAUSED = "paused"


WORK = (Phase.ACTIVE, Phase.REPLAYED)


class Stopwatch:
    """Seconds by phase. The innermost phase that was entered counts.

    Reading is safe beside a thread that enters or leaves: the state is one tuple, exchanged whole. Who enters and
    leaves from several threads needs a lock.
    """

    def __init__(self, now: float) -> None:
        self._state: tuple[tuple[Phase, ...], float, dict[Phase, float]] = (
            (Phase.ACTIVE,),
            now,
            dict.fromkeys(Phase, 0.0),
        )

    @property
    def phase(self) -> Phase:
        """What is going on now."""
        return self._state[0][-1]

    def is_in(self, phase: Phase) -> bool:
        """Whether `phase` was entered and not left, at any depth."""
        return phase in self._state[0]

    def enter(self, phase: Phase, now: float) -> None:
        """Begin a phase inside the present one."""
        self._switch((*self._state[0], phase), now)

    def leave(self, phase: Phase, now: float) -> None:
        """End the innermost such phase; others that were entered since go on."""
        stack = list(self._state[0])
        at = len(stack) - 1 - stack[::-1].index(phase)
        del stack[at]
        self._switch(tuple(stack), now)

    def work_as(self, phase: Phase, now: float) -> None:
        """Count steps as new or as replayed from now on."""
        self._switch((phase, *self._state[0][1:]), now)

    def seconds(self, now: float) -> dict[Phase, float]:
        """Return the seconds of every phase up to now."""
        stack, since, totals = self._state
        return {**totals, stack[-1]: totals[stack[-1]] + max(0.0, now - since)}

    def working(self, now: float) -> float:
        """Seconds spent on steps, new and replayed."""
        stack, since, totals = self._state
        running = max(0.0, now - since) if stack[-1] in WORK else 0.0
        return totals[Phase.ACTIVE] + totals[Phase.REPLAYED] + running

    def _switch(self, stack: tuple[Phase, ...], now: float) -> None:
        self._state = (stack, max(now, self._state[1]), self.seconds(now))


def total(parts: Mapping[str, float], *, without: tuple[Phase, ...] = ()) -> float:
    """Add the seconds of phases up, by name, some left out."""
    return sum(seconds for name, seconds in parts.items() if name not in without)
