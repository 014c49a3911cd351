"""Which questions have calls on the wire: calls of one question share its budget, whichever form they ask for.

Event loop only. The budget itself is core/retry_history.py.
"""

import asyncio
from collections import Counter
from collections.abc import Hashable


class QuestionCalls:
    """Counts calls under way by question, and wakes who waits for the end of one."""

    def __init__(self) -> None:
        self._under_way: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, list[asyncio.Future[None]]] = {}

    def under_way(self, question: Hashable) -> int:
        """Return how many calls of a question are on the wire."""
        return self._under_way[question]

    def began(self, question: Hashable) -> None:
        """Count a call in; each must be `ended`."""
        self._under_way[question] += 1

    def ended(self, question: Hashable) -> None:
        """Count a call out, once what it cost is remembered."""
        left = self._under_way.pop(question, 1) - 1
        if left:
            self._under_way[question] = left
        for future in self._waiting.pop(question, ()):
            if not future.done():
                future.set_result(None)

    async def wait(self, question: Hashable) -> None:
        """Return when a call of a question has ended; at once if none is under way."""
        if self._under_way[question]:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.setdefault(question, []).append(future)
            await future
