"""From the loop's thread to disk: a queue that costs an append, and one thread that does everything else.

The thread wakes four times a second, so that a kill loses less than a second of rows; it is woken by no row but the
first ones after a save, which a resume is compared with: a wake-up costs the loop more than the row.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from trainhooks.core.progress import Progress
from trainhooks.storage.metrics import MetricsLog

log = logging.getLogger("trainhooks")

_WAKE_SECONDS = 0.25
_SYNC_SECONDS = 4.0
_SNAPSHOT_SECONDS = 1.0
_IDLE_SNAPSHOT_SECONDS = 10.0

Entry = tuple[int | None, float, float | None, dict[str, Any] | None]
"""(step or None for an event, UTC Unix seconds, working seconds where this ends a step, members or None where there is
nothing else to it)."""


class Device(Protocol):
    """Numbers that are still on a device."""

    def settle(self, members: dict[str, Any], *, wait: bool) -> bool:
        """Put numbers in place of device tensors; False where they are not there yet and `wait` is False."""

    def move(self) -> None:
        """Send everything that is held on its way. On the training's own thread."""


class Recorder:
    """Everything that is recorded, in order, on its way to `metrics` and into `progress`; until `start` it waits."""

    def __init__(self, progress: Progress, snapshot: Callable[[], None]) -> None:
        self.device: Device | None = None
        self.watchers: list[Callable[[int, dict[str, Any]], None]] = []
        """Are shown each row's step and members, with `lock` held."""
        self.trouble: str | None = None
        """What the disk refuses at the moment."""
        self.lock = threading.RLock()
        """Held while entries are taken in: whoever reads `progress` holds it."""
        self._metrics: MetricsLog | None = None
        self._progress = progress
        self._snapshot = snapshot
        self._entries: deque[Entry] = deque()
        self.put: Callable[[Entry], None] = self._entries.append
        """Record an entry: atomic, from any thread."""
        self._synced_at = self._snapshot_at = time.monotonic()
        self._is_changed = True
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trainhooks-recorder", daemon=True)

    def start(self, metrics: MetricsLog) -> None:
        """Begin to bring entries to disk. `snapshot` is called from now on."""
        self._metrics = metrics
        self._thread.start()

    def flush(self, *, sync: bool) -> None:
        """Bring everything recorded so far to the operating system, or to the medium. From the training's thread."""
        self.send()
        self._work(wait=True, sync=sync, snapshot=sync)

    def send(self) -> None:
        """Start the copy of what is on a device. From the training's thread; does not wait."""
        if self.device is not None:
            self.device.move()

    def sync(self) -> None:
        """Bring everything that was recorded and sent to the medium. From any thread."""
        self._work(wait=True, sync=True, snapshot=True)

    def urge(self) -> None:
        """Let the thread bring what was recorded to the medium at once. From the training's thread; does not wait."""
        self.send()
        self._wake.set()

    def latest(self) -> dict[str, float]:
        """Return every metric's last value, up to what was recorded last. From the training's thread."""
        self.flush(sync=False)
        with self.lock:
            return self._progress.latest()

    def close(self) -> None:
        """Write what is left, sync, and end the thread. What never started leaves nothing behind."""
        if self._metrics is None:
            return
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self.flush(sync=True)
        if self._entries:
            log.error("%d rows are lost: their numbers could not be brought from the GPU", len(self._entries))
        if self._metrics.pending_bytes:
            log.error(
                "%d bytes of metrics are lost: the disk took no more (%s)", self._metrics.pending_bytes, self.trouble
            )
        self._metrics.close()

    def take_in(self) -> None:
        """Bring `progress` up to date. With `lock` held."""
        self._drain(wait=False)

    def _run(self) -> None:
        while not self._stop.is_set():
            is_urgent = self._wake.wait(_WAKE_SECONDS)
            if self._stop.is_set():
                return
            self._wake.clear()
            now = time.monotonic()
            seen = _SNAPSHOT_SECONDS if self._is_changed or self._entries else _IDLE_SNAPSHOT_SECONDS
            self._work(
                wait=is_urgent,
                sync=is_urgent or now - self._synced_at >= _SYNC_SECONDS,
                snapshot=now - self._snapshot_at >= seen,
            )

    def _work(self, *, wait: bool, sync: bool, snapshot: bool) -> None:
        metrics = self._metrics
        if metrics is None:
            return
        with self.lock:
            self._drain(wait=wait)
            try:
                metrics.write()
                if sync:
                    metrics.sync()
                    self._synced_at = time.monotonic()
                if snapshot:
                    self._snapshot()
                    self._snapshot_at = time.monotonic()
                    self._is_changed = False
            except OSError as error:
                self._complain(error)
            else:
                self._calm()

    def _drain(self, *, wait: bool) -> None:
        entries, device, metrics = self._entries, self.device, self._metrics
        if metrics is None:
            return
        while entries:
            step, at, working, members = entries[0]
            if device is not None and members is not None and not device.settle(members, wait=wait):
                return  # later entries wait behind it: the file is in order
            entries.popleft()
            self._is_changed = True
            if step is not None and working is not None:
                self._progress.tick(step + 1, working)
            if members is not None:
                try:
                    self._add(metrics, step, at, members)
                except Exception as error:  # the rows behind it are not lost over one that cannot be written
                    log.error("what was recorded of step %s is lost (%s: %s)", step, type(error).__name__, error)

    def _add(self, metrics: MetricsLog, step: int | None, at: float, members: dict[str, Any]) -> None:
        if step is None:
            metrics.add({"attempt": self._progress.attempt, "at": at, **members})
            return
        metrics.add({"attempt": self._progress.attempt, "step": step, "at": at, **members})
        self._progress.row(step, members)
        for watch in self.watchers:
            watch(step, members)

    def _complain(self, error: OSError) -> None:
        trouble = f"progress cannot be written ({error.strerror or error}); rows are kept and tried again"
        if trouble != self.trouble:
            log.warning("%s. Training continues", trouble)
        self.trouble = trouble

    def _calm(self) -> None:
        if self.trouble is not None and self._metrics is not None and not self._metrics.pending_bytes:
            log.warning("progress is written again, nothing was lost")
            self.trouble = None
