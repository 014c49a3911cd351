"""An event loop whose time jumps to the next timer: hours of waiting in milliseconds, in exact order.

For code that waits only for timers and its own tasks. For real sockets use a real loop.

    with asyncio.Runner(loop_factory=VirtualLoop) as runner: runner.run(main())
"""

import asyncio
import selectors
from typing import Any

START_AT = 1_800_000_000.0
"""UTC Unix seconds at time 0 (January 2027)."""


class _Impatient(selectors.DefaultSelector):
    """Does not sleep: advances the clock by the waiting time."""

    slept = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise RuntimeError("deadlock: all tasks wait and no timer is due")
        if timeout > 0:
            self.slept += timeout
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop in virtual time, from 0."""

    def __init__(self) -> None:
        self._impatient = _Impatient()
        super().__init__(self._impatient)

    def time(self) -> float:
        """Virtual seconds."""
        return self._impatient.slept


class VirtualClock:
    """The Clock port over the running loop's time."""

    def now(self) -> float:
        """UTC Unix seconds."""
        return START_AT + self.monotonic()

    def monotonic(self) -> float:
        """The loop's time."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
