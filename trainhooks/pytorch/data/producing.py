"""The cursors around the making of a batch, in a loader's worker or in the loop's own process: core/cursor.py."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import get_worker_info

from trainhooks.core.cursor import Cursor, Produced, Productions
from trainhooks.errors import RunUnavailable
from trainhooks.host import run_client
from trainhooks.host.launch import launched
from trainhooks.host.run_client import RunClient


class Producer:
    """Asks for cursors where batches are made."""

    def __init__(self, client: RunClient) -> None:
        self._client = client
        self._before: Cursor | None = None
        self._failure: str | None = None

    def begin(self) -> None:
        """A batch is about to be made."""
        self._failure = None
        self._before = self._cursor()

    def end(self, *, needs_end: bool = True) -> Produced:
        """A batch has been made: return what travels with it.

        Args:
            needs_end: also in the loop's own process, where the next batch begins as this one's step ends.
        """
        info = get_worker_info()
        after = self._cursor() if needs_end or info is not None else None
        return Produced(None if info is None else info.id, self._before, after, self._failure)

    def _cursor(self) -> Cursor | None:
        try:
            return self._client.cursor(is_durable=False)  # a checkpoint's own cursor makes it durable
        except RunUnavailable as error:
            self._failure = error.message
            return None


def producer() -> Producer | None:
    """Return the producer of this process's run; None where it belongs to none, or where rank 0 does that.

    Raises:
        ConfigInvalid: the environment names no run.
    """
    client = run_client.of_environment()
    return None if client is None or launched().rank > 0 else Producer(client)


def watched(batches: Iterator[Any], productions: Productions) -> Iterator[Any]:
    """Yield the batches of a loader that is used as it is."""
    asking = producer()
    while True:
        if asking is not None:
            asking.begin()
        try:
            batch = next(batches)
        except StopIteration:
            return
        if asking is not None:
            productions.take(asking.end())
        yield batch
