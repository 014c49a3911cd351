"""The files of one attempt, opened together in the one process that writes them, and closed together."""

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trainhooks.core.certificate import Certificate, members
from trainhooks.core.difference import Difference
from trainhooks.core.progress import Progress, Summary
from trainhooks.core.timing import Phase
from trainhooks.errors import DirectoryUnusable
from trainhooks.session.recorder import Recorder
from trainhooks.session.registry_writer import RegistryWriter
from trainhooks.session.replaying import Replaying
from trainhooks.storage import atomic, metrics, session, snapshot
from trainhooks.storage.catalog import NAME as CHECKPOINTS
from trainhooks.storage.catalog import Catalog, Recoverable
from trainhooks.storage.lock import DirectoryLock
from trainhooks.storage.metrics import MetricsLog
from trainhooks.storage.replay import rows_from
from trainhooks.storage.responses import ResponseLog
from trainhooks.storage.session import SessionFile
from trainhooks.storage.workspace import locate

log = logging.getLogger("trainhooks")


class AttemptFiles:
    """Lock, session.json, metrics.jsonl, progress.json, checkpoints.json and api_recovery.jsonl of a running attempt.

    Args:
        summarise: gives what progress.json says; called from the recorder's thread.
        database: the experiment database that knows of the run; see `ProgressTracker`.

    Raises:
        SessionBusy: another process writes there.
        SessionInvalid: session.json is damaged.
        DirectoryUnusable: the directory cannot be written to.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        output_dir: Path,
        total_steps: int,
        summarise: Callable[[], Summary],
        database: str | os.PathLike[str] | bool,
    ) -> None:
        self.directory = output_dir / "progress"
        self.certificate: Certificate | None = None
        """How what a resumed attempt did again compares with what was recorded, once that is known."""
        self._replaying: Replaying | None = None
        self._summarise = summarise
        try:
            atomic.make_directory(self.directory)
            self._lock = DirectoryLock(self.directory)
        except OSError as error:
            raise unusable(self.directory, error) from error
        try:
            self._open(config, output_dir, total_steps)
        except OSError as error:
            self._lock.release()
            raise unusable(self.directory, error) from error
        except BaseException:
            self._lock.release()
            raise
        self._database = locate(database, output_dir)
        self._output_dir = output_dir
        self._registrar: RegistryWriter | None = None
        self._saved: list[Recoverable] = []
        self._has_begun = False
        self._beginning = threading.Lock()

    def _open(self, config: Mapping[str, Any], output_dir: Path, total_steps: int) -> None:
        """Read what is there. Nothing is written before `begin`: a start that is refused changes nothing."""
        self.session = SessionFile(self.directory / session.NAME, config, total_steps)
        last = snapshot.read(self.directory / snapshot.NAME)
        tail = metrics.tail_of(self.directory / metrics.NAME)
        self._finish_last(last)
        self.attempt = self.session.begin(at_least=tail.attempt + 1)
        self.catalog = Catalog(output_dir)
        self.responses = ResponseLog(self.directory)
        self.reached_step = max(tail.steps, 0 if last is None else last.get("reached_step", 0))
        """Steps that any earlier attempt finished or began to record."""
        self.progress = Progress(
            total_steps=total_steps, attempt=self.attempt, earlier_seconds=_sum(self.session.attempts)
        )
        self.recorder = Recorder(self.progress, self._write_snapshot)

    def begin(self) -> None:
        """Write that this attempt runs, and bring to disk what is recorded. From any thread; once is enough.

        Raises:
            DirectoryUnusable: the directory cannot be written to.
        """
        with self._beginning:
            if self._has_begun:
                return
            try:
                log = MetricsLog(self.directory / metrics.NAME)
                try:
                    self.session.write()
                    self._saved = self.catalog.write()
                except BaseException:
                    log.close()
                    raise
            except OSError as error:
                raise unusable(self.directory, error) from error
            if self._database is not None:
                self._registrar = RegistryWriter(
                    self._database, self._output_dir, self.session, self.recorder, reached_step=self.reached_step
                )
                self._registrar.note(self._saved)
            self.recorder.start(log)
            self._has_begun = True

    def write_session(self) -> None:
        """Write session.json again, if this attempt has begun."""
        if self._has_begun:
            self.session.write()

    def _finish_last(self, last: Mapping[str, Any] | None) -> None:
        """Take over what an attempt that was cut off had written last."""
        attempts = self.session.attempts
        if (
            last is not None
            and attempts
            and "seconds" not in attempts[-1]
            and last["attempt"] == attempts[-1]["attempt"]
        ):
            attempts[-1] |= {"step": last["step"], "seconds": last["attempt_seconds"], "end": "cut off"}

    def _write_snapshot(self) -> None:
        summary = self._summarise()
        members = {
            "session_id": self.session.session_id,
            "at": time.time(),
            "pid": os.getpid(),
            "reached_step": max(self.reached_step, summary.step),
        }
        snapshot.write(self.directory / snapshot.NAME, {**members, **asdict(summary)})

    def register(self, entry: Recoverable) -> None:
        """Make a registration durable. If the disk refuses, a warning says so; metrics.jsonl still has the event."""
        self.recorder.flush(sync=True)
        self.catalog.register(entry)
        self.note_checkpoints(durable=True)

    def note_checkpoints(self, *, durable: bool = False) -> None:
        """Write checkpoints.json again. It lists own checkpoints from their directories, so it need not be durable."""
        try:
            self._saved = self.catalog.write(durable=durable)
        except OSError as error:
            log.warning("%s could not be written (%s)", self.directory / CHECKPOINTS, error.strerror or error)
        if self._registrar is not None:
            self._registrar.note(self._saved)

    def compare(self, from_step: int) -> None:
        """Compare what this attempt records with what earlier ones did from `from_step` on; see `Replaying`."""
        recorded = rows_from(self.directory / metrics.NAME, from_step, before_attempt=self.attempt)
        self._replaying = Replaying(recorded, from_step, self._keep_certificate)
        self.recorder.watchers.append(self._replaying.observe)

    def check(self, found: Mapping[str, Difference | None], *, is_last: bool = False) -> None:
        """Take in what was compared beside the rows; `is_last`: nothing more of that kind comes."""
        if self._replaying is not None:
            with self.recorder.lock:
                self._replaying.check(found, is_last=is_last)

    def check_begun(self, step: int, digests: Mapping[str, Any], *, is_all: bool) -> None:
        """Compare the batch of a step that begins; say the verdict now if nothing more (`is_all`) can change it."""
        if self._replaying is not None:
            with self.recorder.lock:
                self._replaying.begins(step, digests, is_all=is_all)

    def check_samples(self, inexact: str | None) -> None:
        """Take in whether the teacher's samples are those of the checkpoint; `inexact`: why not."""
        if self._replaying is not None:
            with self.recorder.lock:
                self._replaying.check_samples(inexact)

    def _keep_certificate(self, certificate: Certificate) -> None:
        self.certificate = certificate
        self.session.attempts[-1]["certificate"] = members(certificate)
        try:
            self.write_session()
        except OSError as error:
            log.warning("session.json could not be written (%s)", error.strerror or error)

    def close(self, end: str) -> None:
        """Write everything, durably, and release the directory. `end` says how the attempt ended.

        An attempt that has not begun leaves nothing behind.
        """
        if not self._has_begun:
            self.responses.close()
            self._lock.release()
            return
        try:
            self.recorder.close()
            if self._replaying is not None:
                self._replaying.finish()
            summary = self._summarise()
            self.session.attempts[-1] |= {
                "ended_at": time.time(),
                "end": end,
                "step": summary.step,
                "seconds": dict(summary.attempt_seconds),
            }
            self.session.write()
            self._saved = self.catalog.write()
        except OSError as error:  # the training is done: its result is not lost over this
            log.error("the end of the attempt could not be written (%s)", error.strerror or error)
        finally:
            self.responses.close()
            if self._registrar is not None:
                self._registrar.note(self._saved)
                self._registrar.close()
            self._lock.release()


def unusable(directory: Path, error: OSError) -> DirectoryUnusable:
    """Say that a directory cannot be written to."""
    if isinstance(error, NotADirectoryError | FileExistsError):
        found = next((each for each in (directory, *directory.parents) if each.is_file()), directory)
        return DirectoryUnusable(
            f"{directory} cannot be made: {found} is a file.",
            hint="Give another output directory, or move the file away. It was not changed, and nothing was recorded.",
        )
    return DirectoryUnusable(
        f"{directory} cannot be written to ({error.strerror or error}).",
        hint="Give an output directory on a disk with room that this user may write to.",
    )


def _sum(attempts: list[dict[str, Any]]) -> dict[str, float]:
    return {phase: sum(attempt.get("seconds", {}).get(phase, 0.0) for attempt in attempts) for phase in Phase}
