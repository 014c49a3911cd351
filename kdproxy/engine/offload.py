"""Work that grows with a request's body: done on a thread above a size, so that the loop serves others meanwhile.

Reading 30 MB of JSON takes 1 to 3 s of Python, in each of which every other client would wait. orjson holds the
interpreter for a tenth of that in one piece; the rest gives way every few milliseconds.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

INLINE_BYTES = 1 << 20
"""30 ms at most; a thread costs 0.1 ms and its turns."""


async def offload(body: bytes, work: Callable[[], Result]) -> Result:
    """Do work on a body: here if it is small, else on a thread."""
    return work() if len(body) <= INLINE_BYTES else await asyncio.to_thread(work)
