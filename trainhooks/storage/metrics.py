"""metrics.jsonl: one self-contained line per step, appended by one writer thread. docs/formats/metrics.md."""

import json
import math
import queue
import threading
from pathlib import Path
from typing import Any

from trainhooks.storage import atomic

_FLUSH_SECONDS = 0.5


class MetricsWriter:
    """Append rows off the caller's thread."""

    def __init__(self, path: Path) -> None:
        self._rows: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._file = path.open("ab", buffering=0)
        self._thread = threading.Thread(target=self._run, name="trainhooks-metrics", daemon=True)
        self._thread.start()

    def add(self, row: dict[str, Any]) -> None:
        """Queue a row; it reaches the operating system within half a second."""
        self._rows.put(row)

    def close(self) -> None:
        """Write what is queued, sync, and end the thread."""
        self._rows.put(None)
        self._thread.join()
        self._file.close()

    def _run(self) -> None:
        is_open = True
        while is_open:
            rows = [self._rows.get()]
            while not self._rows.empty():
                rows.append(self._rows.get())
            is_open = None not in rows
            text = b"".join(encode(row) for row in rows if row is not None)
            if text:
                self._file.write(text)
        atomic.sync_file(self._file.fileno())


def encode(row: dict[str, Any]) -> bytes:
    """Return a row's line. Numbers that JSON does not have are written as "NaN", "Infinity", "-Infinity"."""
    return json.dumps({name: _plain(value) for name, value in row.items()}, separators=(",", ":")).encode() + b"\n"


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
