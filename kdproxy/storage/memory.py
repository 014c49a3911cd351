"""A store in memory: for tests and throw-away proxies. Everything is gone with the process."""

from collections.abc import Iterator, Sequence

from kdproxy.core.ports import Batch, Watermark


class MemoryStore:
    """A dict behind the Store port."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}
        self._watermark: Watermark | None = None

    def get(self, name: str) -> bytes | None:
        """Return a value, or None."""
        return self._values.get(name)

    def get_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the values of those names that have one."""
        values = self._values
        return {name: values[name] for name in names if name in values}

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Yield the names with a prefix, in name order, with their values."""
        values = self._values  # `apply` makes a new dict, so this one stays as it is
        for name in sorted(values):
            if name.startswith(prefix):
                yield name, values[name]

    def watermark(self) -> Watermark | None:
        """Return the last applied watermark."""
        return self._watermark

    def apply(self, batch: Batch) -> None:
        """Apply a batch."""
        values = {**self._values, **batch.puts}
        for name in batch.deletes:
            values.pop(name, None)
        self._values = values
        if batch.watermark is not None:
            self._watermark = batch.watermark

    def clear(self) -> None:
        """Drop everything."""
        self._values = {}
        self._watermark = None

    def close(self) -> None:
        """Nothing to release."""
