"""The system clock behind the Clock port."""

import asyncio
import time


class SystemClock:
    """Real time."""

    def now(self) -> float:
        """UTC Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never backwards."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
