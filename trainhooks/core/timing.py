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


class _State:
    """A moment at which the phase changed. `working` is read at each step, so its inputs are precomputed."""

    __slots__ = ("is_working", "since", "stack", "totals", "worked")

    def __init__(self, stack: tuple[Phase, ...], since: float, totals: dict[Phase, float]) -> None:
        self.stack = stack
        self.since = since
        self.totals = totals
        self.worked = totals[Phase.ACTIVE] + totals[Phase.REPLAYED]
        self.is_working = stack[-1] in WORK


class Stopwatch:
    """Seconds by phase. The innermost phase that was entered counts.

    Reading is safe beside a thread that enters or leaves: the state is one object, exchanged whole. Who enters and
    leaves from several threads needs a lock.
    """

    def __init__(self, now: float) -> None:
        self._state = _State((Phase.ACTIVE,), now, dict.fromkeys(Phase, 0.0))

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self._state.stack[-1]

    def is_in(self, phase: Phase) -> bool:
        """Whether `phase` was entered and not left, at any depth."""
        return phase in self._state.stack

    def enter(self, phase: Phase, now: float) -> None:
        """Begin a phase inside the present one."""
        self._switch((*self._state.stack, phase), now)

    def leave(self, phase: Phase, now: float) -> None:
        """End the innermost such phase; phases entered since continue. A phase that has ended stays ended."""
        stack = list(self._state.stack)
        if phase not in stack:  # `unpause()` within `paused()`, perhaps in another thread
            return
        at = len(stack) - 1 - stack[::-1].index(phase)
        del stack[at]
        self._switch(tuple(stack), now)

    def work_as(self, phase: Phase, now: float) -> None:
        """Count steps as new or as replayed from now on."""
        self._switch((phase, *self._state.stack[1:]), now)

    def seconds(self, now: float) -> dict[Phase, float]:
        """Return the seconds of every phase up to now."""
        state = self._state
        running = max(0.0, now - state.since)
        return {**state.totals, state.stack[-1]: state.totals[state.stack[-1]] + running}

    def working(self, now: float) -> float:
        """Seconds spent on steps, new and replayed."""
        state = self._state
        return state.worked + now - state.since if state.is_working and now > state.since else state.worked

    def _switch(self, stack: tuple[Phase, ...], now: float) -> None:
        self._state = _State(stack, max(now, self._state.since), self.seconds(now))


def total(parts: Mapping[str, float], *, without: tuple[Phase, ...] = ()) -> float:
    """Add the seconds of phases up, by name, some left out."""
    return sum(seconds for name, seconds in parts.items() if name not in without)
