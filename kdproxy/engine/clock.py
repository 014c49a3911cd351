"""The system clock behind the Clock port."""

import asyncio
import time


class SystemClock:
    """Real time. A miss asks 15 times, so the first two are the standard library's functions themselves."""

    now = staticmethod(time.time)
    """UTC Unix seconds."""
    monotonic = staticmethod(time.monotonic)
    """Seconds from an arbitrary start, never backwards."""

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)
