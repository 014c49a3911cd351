"""One checkpoint on its way to the disk: written by all ranks into one draft, published by rank 0, tried again."""

import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from trainhooks.core.manifest import Manifest
from trainhooks.core.ranks import Ranks
from trainhooks.core.retention import Retention
from trainhooks.errors import CheckpointFailed, CheckpointInvalid, RankLost
from trainhooks.pytorch.checkpoint.capture import blob
from trainhooks.pytorch.checkpoint.saved import encode
from trainhooks.pytorch.checkpoint.share import Share
from trainhooks.pytorch.checkpoint.snapshot import Snapshot
from trainhooks.storage.checkpoints import Checkpoint, CheckpointStore
from trainhooks.storage.draft import Draft

_FIRST_WAIT_SECONDS = 1.0
_LONGEST_WAIT_SECONDS = 60.0
_NICENESS = 10
_HEAD_START_SECONDS = 0.02
"""After a save nothing is queued on the device. What this thread does in Python keeps the training from launching for
up to 5 ms at a time: that is noticed unless a step is queued already."""
_FILES = 4
"""Written side by side: SHA-256 of one file keeps one core busy, and a disk takes several streams."""
_PASSING = (OSError, CheckpointFailed, CheckpointInvalid)
"""What may go by itself: worth another try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What is to be written, copied already or being copied."""

    step: int
    attempt: int
    metrics: Mapping[str, float]
    tags: tuple[str, ...]
    share: Share
    """What this rank writes."""
    snapshot: Snapshot
    """Of its tensors, in order."""


@dataclass(slots=True)
class SaveRecord:
    """How a save went."""

    step: int
    blocked_seconds: float = 0.0
    """How long the training stood still for it."""
    written_seconds: float = 0.0
    """From the copy to durable, verified and announced."""
    size_bytes: int = 0
    is_durable: bool = False
    checkpoint: Checkpoint | None = None
    """On rank 0, once it is durable."""
    failures: list[str] = field(default_factory=list)


class Writing:
    """Writes one checkpoint, in a thread or in the caller's.

    Args:
        tries: how often at most; None for as long as `give_up` is not called.
    """

    def __init__(
        self,
        store: CheckpointStore,
        material: Material,
        rules: Retention,
        ranks: Ranks,
        record: SaveRecord,
        *,
        tries: int | None,
        before_publish: Callable[[], None],
    ) -> None:
        self.record = record
        self._store = store
        self._material = material
        self._rules = rules
        self._ranks = ranks
        self._tries = tries
        self._before_publish = before_publish
        self._is_hopeless = threading.Event()
        self._told = 0
        self._thread: threading.Thread | None = None
        self.is_waiting = False
        """Between two tries."""
        self.lost: RankLost | None = None
        """Why no rank can save any more."""

    def start(self) -> None:
        """Write in a thread."""
        self._thread = threading.Thread(target=self.run, name="trainhooks-checkpoint", daemon=True)
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come of it."""
        return self._thread is None or not self._thread.is_alive()

    def give_up(self) -> None:
        """Don't try again once the try under way is over."""
        self._is_hopeless.set()

    def join(self) -> None:
        """Wait until it is over."""
        if self._thread is not None:
            self._thread.join()

    def new_failures(self) -> list[str]:
        """Return what has failed since the last call."""
        news = self.record.failures[self._told :]
        self._told += len(news)
        return news

    def run(self) -> None:
        """Write; what fails is noted in the record."""
        started = time.monotonic()
        if self._thread is not None:
            _yield_to_training()
            self._material.snapshot.wait_taken()
            time.sleep(_HEAD_START_SECONDS)
        self._material.snapshot.fetch()
        self._material.share.let_go()
        wait_seconds = _FIRST_WAIT_SECONDS
        while self._tries != 0:
            try:
                self.record.checkpoint = self._write()
                self.record.is_durable = True
                self.record.written_seconds = time.monotonic() - started
                self._prune()
                return
            except _TryFailed as failed:
                self.record.failures.append(failed.reason)
                if not failed.is_passing:
                    return
            except RankLost as error:
                self.record.failures.append(error.message)
                self.lost = error
                return
            except Exception as error:
                self.record.failures.append(_spell(error))
                return
            self._tries = None if self._tries is None else self._tries - 1
            if self._tries != 0:
                self.is_waiting = True
                if self._is_hopeless.wait(wait_seconds):
                    return
                self.is_waiting = False
            wait_seconds = min(2 * wait_seconds, _LONGEST_WAIT_SECONDS)

    def _write(self) -> Checkpoint | None:
        """One try. Each rank writes what is its own; one that fails keeps all from publishing."""
        draft: Draft | None = None
        failure: Exception | None = None
        try:
            draft = self._begin()
        except Exception as error:
            failure = error
        self._agree(failure, draft)
        if draft is None:
            draft = Draft(self._store.draft_path(self._material.step))
        try:
            self._fill(draft)
        except Exception as error:
            failure = error
        self._agree(failure, draft)
        checkpoint = None
        try:
            if self._ranks.rank == 0:
                checkpoint = self._publish(draft)
        except Exception as error:
            failure = error
        self._agree(failure, draft)
        return checkpoint

    def _begin(self) -> Draft | None:
        if self._ranks.rank != 0:
            return None
        self._store.require_space(self._material.share.whole_bytes)
        return self._store.begin(self._material.step)

    def _agree(self, failure: Exception | None, draft: Draft | None) -> None:
        """Go on if no rank has failed. Else all give this try up, and know alike whether there is another one."""
        if self._ranks.all_ok(failure is None):
            return
        is_passing = self._ranks.all_ok(failure is None or isinstance(failure, _PASSING))
        if draft is not None and self._ranks.rank == 0:
            draft.discard()
        raise _TryFailed(failure, is_passing=is_passing) from failure

    def _fill(self, draft: Draft) -> None:
        """Write all files, some side by side: the first begins while others' bytes are still on their way here."""
        copies = iter(self._material.snapshot.copies())
        with ThreadPoolExecutor(_FILES, thread_name_prefix="trainhooks-file") as files:
            written = [
                files.submit(
                    draft.write_tensors,
                    file.name,
                    [blob(key, copy.tensor, copy.wait) for key, copy in zip(file.keys, copies, strict=False)],
                    metadata=file.metadata,
                )
                for file in self._material.share.files
            ]
            written += [
                files.submit(draft.write_text, name, encode(members)) for name, members in self._material.share.texts()
            ]
        for each in written:
            each.result()
        if self._ranks.rank != 0:
            draft.share(self._ranks.rank)

    def _publish(self, draft: Draft) -> Checkpoint:
        draft.gather(self._ranks.world)
        self._material.share.check_whole(draft.path, self._ranks.world)
        manifest = Manifest(
            step=self._material.step,
            serial=self._store.next_serial(),
            session_id=self._store.session_id,
            attempt=self._material.attempt,
            created_at=time.time(),
            files=draft.files,
            metrics=self._material.metrics,
            tags=self._material.tags,
            world=self._ranks.world,
        )
        self.record.size_bytes = manifest.size_bytes
        self._before_publish()
        return self._store.publish(draft, manifest)

    def _prune(self) -> None:
        if self._ranks.rank == 0:
            try:
                self._store.prune(self._rules)
            except OSError as error:
                self.record.failures.append(f"An old checkpoint could not be deleted: {error}")


class _TryFailed(Exception):
    """One try has failed, on this rank or on another one."""

    def __init__(self, failure: Exception | None, *, is_passing: bool) -> None:
        self.reason = (
            "Another rank could not write its part: its own log says why." if failure is None else _spell(failure)
        )
        self.is_passing = is_passing


def _spell(error: Exception) -> str:
    return str(error) if isinstance(error, _PASSING) else f"{type(error).__name__}: {error}"


def _yield_to_training() -> None:
    """Let this thread, and those that it starts, have the CPU only where the training leaves it. Linux counts niceness
    per thread."""
    if sys.platform == "linux":
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
