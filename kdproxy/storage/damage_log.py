"""Logs the damaged lines of the journal: each once, with what to do."""

import logging
from collections.abc import Callable

from kdproxy.core.ports import Location
from kdproxy.errors import KdproxyError

log = logging.getLogger("kdproxy.storage")

_MOST_REMEMBERED = 10_000


class DamageLog:
    """The damaged lines that one process has found. Any thread."""

    def __init__(self, segment_name: Callable[[int], str]) -> None:
        """`segment_name` returns the file name of a segment."""
        self._segment_name = segment_name
        self._reported: set[Location] = set()

    def report(self, location: Location, error: KdproxyError) -> None:
        """Log a line that cannot be used, unless it has been logged: one request reads it several times."""
        if location in self._reported:
            return
        if len(self._reported) < _MOST_REMEMBERED:
            self._reported.add(location)
        log.error(
            "a line is damaged and not used; what it holds is bought again when it is requested, unless you restore it "
            "first: `kdproxy warm COPY` with a copy of the journal. `kdproxy verify` lists all damaged lines",
            extra={
                "segment": self._segment_name(location.segment),
                "offset": location.offset,
                "bytes": location.length,
                "reason": error.message,
            },
        )
