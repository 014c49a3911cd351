"""A running session's part of the experiment database, written by a thread of its own.

The training never waits for the database but at its end, and then for seconds; one warning says what goes wrong. Each
write opens the database and closes it, so no fork carries a connection along.
"""

import logging
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from trainhooks.core.experiment import KnownCheckpoint, MetricSummary, Run, run_name, sessions_of, tags_of
from trainhooks.core.row import RESERVED
from trainhooks.core.tally import Tally
from trainhooks.errors import TrainhooksError
from trainhooks.session.recorder import Recorder
from trainhooks.storage import metrics
from trainhooks.storage.catalog import Recoverable
from trainhooks.storage.liveness import HEARTBEAT_SECONDS
from trainhooks.storage.registry import Registry
from trainhooks.storage.replay import rows_from
from trainhooks.storage.session import SessionFile

log = logging.getLogger("trainhooks")

_CLOSE_SECONDS = 5.0


class RegistryWriter:
    """Keeps a run's rows up to date: when something is noted, and each minute as a sign of life.

    Args:
        database: the file.
        output_dir: the run's.
        reached_step: steps that earlier attempts recorded.
    """

    def __init__(
        self, database: Path, output_dir: Path, session: SessionFile, recorder: Recorder, *, reached_step: int
    ) -> None:
        self._database = database
        self._folder = output_dir.absolute()
        self._session = session
        self._attempt: int = session.attempts[-1]["attempt"]
        self._recorder = recorder
        self._tally = Tally(counts_from=reached_step)
        self._earlier: tuple[MetricSummary, ...] | None = None
        """What earlier attempts recorded, once that is known."""
        self._run: Run | None = None
        self._is_over = False
        self._has_failed = False
        self._due = threading.Event()
        self._thread = threading.Thread(target=self._work, name="trainhooks-registrar", daemon=True)
        recorder.watchers.append(self._tally.add)

    def note(self, saved: Sequence[Recoverable]) -> None:
        """Have the session as it is now written, with its checkpoints. Returns at once; from any thread."""
        self._run = self._describe(saved)
        self._due.set()
        if self._thread.ident is None:
            self._thread.start()

    def close(self) -> None:
        """Return when what was noted last is written, or after some seconds."""
        self._is_over = True
        self._due.set()
        self._thread.join(_CLOSE_SECONDS)
        if self._thread.is_alive():
            self._complain("it does not answer")

    def _describe(self, saved: Sequence[Recoverable]) -> Run:
        members = self._session.members
        return Run(
            run_id=self._session.session_id,
            origin=None,
            name=run_name(members["config"], self._folder.name, self._session.session_id),
            directory=str(self._folder),
            config=members["config"],
            created_at=members["created_at"],
            total_steps=members["total_steps"],
            tags=tags_of(members["config"], (tag for each in saved for tag in each.tags)),
            checkpoints=tuple(
                KnownCheckpoint(
                    path=str(self._folder / each.path),
                    step=each.step,
                    created_at=each.created_at,
                    metrics=each.metrics,
                )
                for each in saved
            ),
            sessions=sessions_of(self._session.attempts, running=self._attempt),
        )

    def _work(self) -> None:
        while True:
            self._due.wait(HEARTBEAT_SECONDS)
            self._due.clear()
            is_last = self._is_over
            try:
                assert self._run is not None
                self._write(self._run)
            except (TrainhooksError, sqlite3.Error, OSError) as error:
                self._complain(error)
            if is_last:
                return

    def _write(self, run: Run) -> None:
        now = time.time()
        with closing(Registry(self._database)) as registry:
            if self._earlier is None:
                self._earlier = self._count_earlier(registry.find(run.run_id))
            tally = Tally.of(self._earlier)
            with self._recorder.lock:
                tally.extend(self._tally.summaries())
            sessions = tuple(
                replace(each, seen_at=now) if each.attempt == self._attempt else each for each in run.sessions
            )
            registry.record(replace(run, metrics=tally.summaries(), sessions=sessions))

    def _count_earlier(self, known: Run | None) -> tuple[MetricSummary, ...]:
        """Sum up what earlier attempts recorded: of a known run only what came after it was written last."""
        if self._attempt == 1:
            return ()
        path = self._folder / "progress" / metrics.NAME
        tally = Tally.of(() if known is None else known.metrics)
        if tally.reached:
            rows = iter(rows_from(path, tally.reached, before_attempt=self._attempt))
        else:
            rows = (line for line in metrics.read_lines(path) if line["attempt"] < self._attempt)
        for row in rows:
            if "kind" not in row and isinstance(row.get("step"), int):
                tally.add(row["step"], {name: value for name, value in row.items() if name not in RESERVED})
        return tally.summaries()

    def _complain(self, problem: object) -> None:
        if not self._has_failed:
            self._has_failed = True
            log.warning(
                "the run is not in the experiment database %s (%s). Training continues", self._database, problem
            )
