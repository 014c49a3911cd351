"""Recently used answers in memory, bounded in bytes. Read on the loop's thread; any thread may drop answers."""

import threading
from collections import OrderedDict
from collections.abc import Iterable

from kdproxy.core.models import Answer

_ENTRY_OVERHEAD_BYTES = 600


class RecentAnswers:
    """An LRU cache of answers."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()  # protects the three below
        self._answers: OrderedDict[str, Answer] = OrderedDict()
        self._bytes = 0
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """Changes whenever an answer is dropped: an answer looked up before may have been withdrawn since."""
        return self._epoch

    def get(self, name: str) -> Answer | None:
        """Return an answer and make it the most recent."""
        with self._lock:
            answer = self._answers.get(name)
            if answer is not None:
                self._answers.move_to_end(name)
            return answer

    def put(self, name: str, answer: Answer, *, epoch: int) -> None:
        """Cache an answer that was looked up in `epoch`; one larger than a quarter of the limit is left out."""
        size = _size(answer)
        with self._lock:
            if epoch != self._epoch:
                return
            self._remove(name)
            if size * 4 > self._limit_bytes:
                return
            self._answers[name] = answer
            self._bytes += size
            while self._bytes > self._limit_bytes:
                self._remove(next(iter(self._answers)))

    def drop(self, names: Iterable[str]) -> None:
        """Forget answers."""
        with self._lock:
            self._epoch += 1
            if self._answers:  # during a run of misses the cache is empty, and the names are not computed
                for name in names:
                    self._remove(name)

    def drop_all(self) -> None:
        """Forget everything."""
        with self._lock:
            self._epoch += 1
            self._answers.clear()
            self._bytes = 0

    def _remove(self, name: str) -> None:
        answer = self._answers.pop(name, None)
        if answer is not None:
            self._bytes -= _size(answer)


def _size(answer: Answer) -> int:
    return len(answer.body) + _ENTRY_OVERHEAD_BYTES
