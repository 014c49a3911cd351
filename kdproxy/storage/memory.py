"""A store in memory, used if no disk has room or a safe place for the index. It is lost with the process."""

import threading
from collections.abc import Iterator, Sequence

from kdproxy.core.ports import Batch, Watermark


class MemoryStore:
    """A dict behind the Store port."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._lock = threading.Lock()  # makes reads of several values consistent
        self._watermark: Watermark | None = None

    def get(self, name: str) -> bytes | None:
        """Return a value, or None."""
        return self._values.get(name)

    def get_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the values of those names that have one."""
        with self._lock:
            values = self._values
            return {name: values[name] for name in names if name in values}

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Yield the names with a prefix, in name order, with their values."""
        with self._lock:
            found = [(name, value) for name, value in self._values.items() if name.startswith(prefix)]
        yield from sorted(found)

    def watermark(self) -> Watermark | None:
        """Return the last applied watermark."""
        return self._watermark

    def apply(self, batch: Batch) -> None:
        """Apply a batch."""
        puts = {name: value for name, value in batch.puts.items() if name not in batch.deletes}
        with self._lock:
            self._values.update(puts)
            for name in batch.deletes:
                self._values.pop(name, None)
            if batch.watermark is not None:
                self._watermark = batch.watermark

    def clear(self) -> None:
        """Drop everything."""
        self._values = {}
        self._watermark = None

    def close(self) -> None:
        """Nothing to release."""
