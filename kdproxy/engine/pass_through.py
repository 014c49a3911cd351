"""Calls that pass through and belong to no flight: counted, so that a shutdown can wait for them. Event loop only."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class PassThrough:
    """How many such calls are under way."""

    def __init__(self) -> None:
        self._count = 0
        self._none = asyncio.Event()
        self._none.set()

    def __len__(self) -> int:
        return self._count

    @contextmanager
    def counted(self) -> Iterator[Callable[[], None]]:
        """Count a call in; what is given must be called at its end, once, unless sending it fails."""
        self._count += 1
        self._none.clear()
        try:
            yield self._ended
        except BaseException:
            self._ended()
            raise

    async def wait_all(self) -> None:
        """Wait until there are none."""
        await self._none.wait()

    def _ended(self) -> None:
        self._count -= 1
        if not self._count:
            self._none.set()
