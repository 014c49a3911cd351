"""The experiment database: runs, their sessions, checkpoints, metrics and tags, in one SQLite file.

Two processes may use it at once (write-ahead log, busy timeout); on a network file system, where that log does not
work, it uses the rollback journal. docs/formats/registry.md.
"""

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kdproxy.filesystem import is_network
from trainhooks.core.experiment import KnownCheckpoint, MetricSummary, Run, Session
from trainhooks.errors import TrainhooksError
from trainhooks.storage import registry_copy
from trainhooks.storage.registry_schema import MIGRATIONS

_BUSY_SECONDS = 20.0
_RETRY_SECONDS = 0.02


class Registry:
    """The database at `path`: created with its folder, and migrated if necessary.

    Use it from one thread, and not across a fork: open it, write, close it.

    Args:
        is_copy: read-only; `path` must exist and stays untouched.

    Raises:
        TrainhooksError: missing, not a database, of a newer release, or not writable.
    """

    def __init__(self, path: Path, *, is_copy: bool = False) -> None:
        self.path = path
        if is_copy and not path.is_file():
            raise TrainhooksError(
                f"There is no experiment database at {path}.",
                hint="A training creates one beside its output directory when it starts. Name it with --database.",
                code="registry_missing",
            )
        try:
            self._connection = registry_copy.copy(path) if is_copy else _connect(path)
            try:
                self._connection.row_factory = sqlite3.Row
                self._refuse_newer()
                if not is_copy:
                    _set_journal(self._connection, path)
                self._migrate()
            except BaseException:
                self._connection.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise TrainhooksError(
                f"The experiment database {path} cannot be used ({error}).",
                hint="Name another file, or move this one away: `trainhooks recover` still reads the runs themselves.",
                code="registry_failed",
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def _refuse_newer(self) -> None:
        version = self._version()
        if version > len(MIGRATIONS):
            raise TrainhooksError(
                f"The experiment database {self.path} was written by a newer trainhooks (version {version}; this"
                f" release knows {len(MIGRATIONS)}).",
                hint="Upgrade trainhooks, or name another file.",
                code="registry_newer",
            )

    def _migrate(self) -> None:
        if self._version() == len(MIGRATIONS):
            return
        with self._write() as connection:
            for migration in MIGRATIONS[self._version() :]:  # another process may have come first
                for statement in migration.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _version(self) -> int:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        return int(version)

    def record(self, run: Run) -> None:
        """Write a run. Its checkpoints, metrics and tags replace the known ones; its sessions are only added."""
        with self._write():
            self._put("runs", run.run_id, [_run_row(run)])
            for table in ("checkpoints", "metrics", "tags"):
                self._connection.execute(f"DELETE FROM {table} WHERE run_id = ?", (run.run_id,))  # noqa: S608
            self._put("sessions", run.run_id, (_session_row(each) for each in run.sessions))
            self._put("checkpoints", run.run_id, (_checkpoint_row(each) for each in run.checkpoints))
            self._put("metrics", run.run_id, (_metric_row(each) for each in run.metrics))
            self._put("tags", run.run_id, ({"tag": tag} for tag in run.tags))

    def _put(self, table: str, run_id: str, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            names = ["run_id", *row]
            places = ", ".join("?" * len(names))
            changes = ", ".join(f"{name} = excluded.{name}" for name in names)
            statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places})"  # noqa: S608
            self._connection.execute(f"{statement} ON CONFLICT DO UPDATE SET {changes}", (run_id, *row.values()))

    def record_recovery(self, run: Run, *, created_at: float) -> str:
        """Write a recovery of `run` as a run of its own (`<run>_recovered`, `..._2`); return the id."""
        self.record(run)
        with self._write() as connection:
            taken = {
                row["run_id"]
                for row in connection.execute("SELECT run_id FROM runs WHERE origin = ?", (run.run_id,)).fetchall()
            }
            run_id = next(name for name in _numbered(f"{run.run_id}_recovered") if name not in taken)
            self._put("runs", run_id, [{**_run_row(run), "origin": run.run_id, "created_at": created_at}])
        return run_id

    def runs(self) -> list[Run]:
        """Return all runs, newest first, with everything that belongs to them."""
        rows = self._connection.execute("SELECT run_id FROM runs ORDER BY created_at DESC, run_id").fetchall()
        return [run for row in rows if (run := self.find(row["run_id"])) is not None]

    def find(self, run_id: str) -> Run | None:
        """Return one run with everything that belongs to it."""
        row = self._connection.execute("SELECT * FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if row is None:
            return None
        return Run(
            **{**dict(row), "config": json.loads(row["config"])},
            metrics=tuple(MetricSummary(**each) for each in self._of("metrics", run_id, "name")),
            tags=tuple(each["tag"] for each in self._of("tags", run_id, "tag")),
            checkpoints=tuple(
                KnownCheckpoint(**{**each, "metrics": json.loads(each["metrics"])})
                for each in self._of("checkpoints", run_id, "step, path")
            ),
            sessions=tuple(Session(**each) for each in self._of("sessions", run_id, "attempt")),
        )

    def _of(self, table: str, run_id: str, order: str) -> Iterator[dict[str, Any]]:
        statement = f"SELECT * FROM {table} WHERE run_id = ? ORDER BY {order}"  # noqa: S608
        for row in self._connection.execute(statement, (run_id,)).fetchall():
            yield {name: row[name] for name in row.keys() if name != "run_id"}  # noqa: SIM118


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    return sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)


def _set_journal(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    if is_network(path.parent):
        connection.execute("PRAGMA journal_mode = DELETE")
    else:
        _switch_to_log(connection)
        connection.execute("PRAGMA synchronous = NORMAL")  # all of it can be rebuilt from the runs


def _switch_to_log(connection: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. If processes create the file at once, SQLite may return busy without waiting."""
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # Measured: 1 of 360 concurrent starts, six at a time.
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > until:
                raise
            time.sleep(_RETRY_SECONDS)
        else:
            return


def _run_row(run: Run) -> dict[str, Any]:
    return {
        "origin": run.origin,
        "name": run.name,
        "directory": run.directory,
        "config": _text(run.config),
        "created_at": run.created_at,
        "total_steps": run.total_steps,
    }


def _session_row(each: Session) -> dict[str, Any]:
    return {name: getattr(each, name) for name in each.__slots__}


def _checkpoint_row(each: KnownCheckpoint) -> dict[str, Any]:
    return {"path": each.path, "step": each.step, "created_at": each.created_at, "metrics": _text(each.metrics)}


def _metric_row(each: MetricSummary) -> dict[str, Any]:
    return {name: getattr(each, name) for name in each.__slots__}


def _numbered(base: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base}_{number}"
        number += 1


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), default=str)
