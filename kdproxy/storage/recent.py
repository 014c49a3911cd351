"""Recently used answers in memory, bounded in bytes. Event loop only."""

from collections import OrderedDict

from kdproxy.core.models import Answer

_ENTRY_OVERHEAD_BYTES = 600


class RecentAnswers:
    """Least recently used first out."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._bytes = 0

    def get(self, name: str) -> Answer | None:
        """Return an answer and make it the most recent."""
        answer = self._answers.get(name)
        if answer is not None:
            self._answers.move_to_end(name)
        return answer

    def put(self, name: str, answer: Answer) -> None:
        """Remember an answer; one that would fill a quarter of the memory alone is left out."""
        size = _size(answer)
        if size * 4 > self._limit_bytes:
            return
        self.drop(name)
        self._answers[name] = answer
        self._bytes += size
        while self._bytes > self._limit_bytes:
            _, oldest = self._answers.popitem(last=False)
            self._bytes -= _size(oldest)

    def drop(self, name: str) -> None:
        """Forget an answer."""
        answer = self._answers.pop(name, None)
        if answer is not None:
            self._bytes -= _size(answer)


def _size(answer: Answer) -> int:
    return len(answer.body) + _ENTRY_OVERHEAD_BYTES
