"""The experiment database: runs, their sessions, checkpoints, metrics and tags, in one SQLite file.

Two processes may use it at once (write-ahead log, busy timeout); on a network file system, where that log does not
work, it has the plain journal. docs/formats/registry.md.
"""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainhooks.errors import TrainhooksError

DATABASE = "experiments.db"
_BUSY_SECONDS = 20.0
_NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "lustre", "beegfs", "ceph", "fuse", "9p", "afs", "gpfs"}
)

MIGRATIONS: tuple[str, ...] = (
    """
    CREATE TABLE runs (
        run_id     TEXT PRIMARY KEY,
        origin     TEXT REFERENCES runs(run_id),
        directory  TEXT NOT NULL,
        config     TEXT NOT NULL,
        created_at REAL NOT NULL
    );
    CREATE TABLE sessions (
        run_id     TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        attempt    INTEGER NOT NULL,
        started_at REAL,
        ended_at   REAL,
        status     TEXT,
        PRIMARY KEY (run_id, attempt)
    );
    CREATE TABLE checkpoints (
        run_id     TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        path       TEXT NOT NULL,
        step       INTEGER,
        created_at REAL,
        metrics    TEXT NOT NULL,
        PRIMARY KEY (run_id, path)
    );
    CREATE TABLE metrics (
        run_id TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        name   TEXT NOT NULL,
        best   REAL,
        last   REAL,
        rows   INTEGER NOT NULL,
        PRIMARY KEY (run_id, name)
    );
    CREATE TABLE tags (
        run_id TEXT NOT NULL REFERENCES runs(run_id) ON DELETE CASCADE,
        tag    TEXT NOT NULL,
        PRIMARY KEY (run_id, tag)
    );
    """,
)
"""Applied in order, once each; `PRAGMA user_version` counts them. A published one is never changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricSummary:
    """One metric of a run: its best and last value and how often it was measured."""

    name: str
    best: float | None
    last: float | None
    rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run as the database knows it."""

    run_id: str
    origin: str | None
    """The run that this one was recovered from."""
    directory: str
    config: Mapping[str, Any]
    created_at: float
    metrics: tuple[MetricSummary, ...] = ()
    tags: tuple[str, ...] = ()
    checkpoints: tuple[Mapping[str, Any], ...] = ()
    sessions: tuple[Mapping[str, Any], ...] = ()


class Registry:
    """The database at `path`; made and brought up to date where it must be.

    Raises:
        TrainhooksError: not a database, one of a newer release, or a place that cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._connection.execute(f"PRAGMA journal_mode = {'DELETE' if is_network(path.parent) else 'WAL'}")
            self._migrate()
        except (sqlite3.Error, OSError) as error:
            raise TrainhooksError(
                f"The experiment database {path} cannot be used ({error}).",
                hint="Name another file, or move this one away: runs are read from their own directories again.",
                code="registry_failed",
            ) from error

    def close(self) -> None:
        """Let go of the file."""
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

    def _migrate(self) -> None:
        with self._write() as connection:
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > len(MIGRATIONS):
                raise TrainhooksError(
                    f"The experiment database {self.path} was written by a newer trainhooks (version {version}).",
                    hint="Upgrade trainhooks, or name another file.",
                    code="registry_newer",
                )
            for migration in MIGRATIONS[version:]:
                for statement in migration.split(";"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def record(self, run: Run) -> None:
        """Write a run; what the database knew of it is replaced."""
        with self._write() as connection:
            connection.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?) ON CONFLICT (run_id) DO UPDATE SET"
                " origin = excluded.origin, directory = excluded.directory, config = excluded.config",
                (run.run_id, run.origin, run.directory, _text(run.config), run.created_at),
            )
            for table in ("sessions", "checkpoints", "metrics", "tags"):
                connection.execute(f"DELETE FROM {table} WHERE run_id = ?", (run.run_id,))  # noqa: S608
            connection.executemany(
                "INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?)",
                (
                    (run.run_id, each["attempt"], each.get("started_at"), each.get("ended_at"), each.get("status"))
                    for each in run.sessions
                ),
            )
            connection.executemany(
                "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?)",
                (
                    (
                        run.run_id,
                        each["path"],
                        each.get("step"),
                        each.get("created_at"),
                        _text(each.get("metrics") or {}),
                    )
                    for each in run.checkpoints
                ),
            )
            connection.executemany(
                "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?, ?)",
                ((run.run_id, each.name, each.best, each.last, each.rows) for each in run.metrics),
            )
            connection.executemany("INSERT OR REPLACE INTO tags VALUES (?, ?)", ((run.run_id, tag) for tag in run.tags))

    def record_recovery(self, run: Run, *, created_at: float) -> str:
        """Write a recovery of `run` as a run of its own (`<run>_recovered`, `..._2`); return the id."""
        self.record(run)
        with self._write() as connection:
            base = f"{run.run_id}_recovered"
            taken = {
                row["run_id"]
                for row in connection.execute("SELECT run_id FROM runs WHERE origin = ?", (run.run_id,)).fetchall()
            }
            run_id = next(name for name in _numbered(base) if name not in taken)
            connection.execute(
                "INSERT INTO runs VALUES (?, ?, ?, ?, ?)",
                (run_id, run.run_id, run.directory, _text(run.config), created_at),
            )
        return run_id

    def runs(self) -> list[Run]:
        """Return all runs, newest first, with their metrics and tags."""
        rows = self._connection.execute("SELECT run_id FROM runs ORDER BY created_at DESC, run_id").fetchall()
        return [run for row in rows if (run := self.find(row["run_id"])) is not None]

    def find(self, run_id: str) -> Run | None:
        """Return one run with all that belongs to it."""
        row = self._connection.execute("SELECT * FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if row is None:
            return None
        return Run(
            run_id=row["run_id"],
            origin=row["origin"],
            directory=row["directory"],
            config=json.loads(row["config"]),
            created_at=row["created_at"],
            metrics=tuple(
                MetricSummary(name=each["name"], best=each["best"], last=each["last"], rows=each["rows"])
                for each in self._of("metrics", run_id, "name")
            ),
            tags=tuple(each["tag"] for each in self._of("tags", run_id, "tag")),
            checkpoints=tuple(
                {**dict(each), "metrics": json.loads(each["metrics"])}
                for each in self._of("checkpoints", run_id, "step")
            ),
            sessions=tuple(dict(each) for each in self._of("sessions", run_id, "attempt")),
        )

    def _of(self, table: str, run_id: str, order: str) -> Iterable[sqlite3.Row]:
        statement = f"SELECT * FROM {table} WHERE run_id = ? ORDER BY {order}"  # noqa: S608
        return self._connection.execute(statement, (run_id,)).fetchall()


def is_network(path: Path) -> bool:
    """Tell whether a folder lies on a network or FUSE file system, where SQLite's shared memory does not work."""
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    place = os.path.realpath(path)
    kind, longest = "", -1
    for line in mounts:
        _, mount, found, *_ = line.split(" ")
        mount = mount.replace("\\040", " ")
        inside = place == mount or place.startswith(mount.rstrip("/") + "/")
        if inside and len(mount) > longest:
            kind, longest = found, len(mount)
    return kind.partition(".")[0] in _NETWORK_FILE_SYSTEMS


def _numbered(base: str) -> Iterator[str]:
    yield base
    number = 2
    while True:
        yield f"{base}_{number}"
        number += 1


def _text(value: Mapping[str, Any]) -> str:
    return json.dumps(dict(value), default=str)
