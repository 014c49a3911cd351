"""Read an experiment database without touching it: into memory, even from a read-only folder.

A plain read-only connection to a write-ahead log leaves `-wal` and `-shm` files behind, or fails if it cannot.
"""

import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

_WAL_VERSION = b"\x02\x02"
"""Bytes 18 and 19 of a database with a write-ahead log (https://www.sqlite.org/fileformat2.html)."""


def copy(path: Path) -> sqlite3.Connection:
    """Return a copy in memory.

    Raises:
        sqlite3.Error: not a database.
        OSError: it cannot be read.
    """
    problem: Exception | None = None
    for read in _ways(path):
        try:
            return read(path)
        except (sqlite3.Error, OSError) as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _ways(path: Path) -> Iterator[Callable[[Path], sqlite3.Connection]]:
    log = _log(path)
    if log.exists():
        yield _as_writer  # a writer is active or was killed: SQLite reads the log and cleans up
    else:
        with path.open("rb") as file:
            has_log = file.read(20)[18:20] == _WAL_VERSION
        yield _as_it_lies if has_log else _locked
    yield _from_a_copy


def _as_writer(path: Path) -> sqlite3.Connection:
    return _read(path, "mode=rw")


def _locked(path: Path) -> sqlite3.Connection:
    return _read(path, "mode=ro")


def _as_it_lies(path: Path) -> sqlite3.Connection:
    """Read a file that no process has open; if one opened it meanwhile, read again."""
    before = path.stat()
    memory = _read(path, "immutable=1")
    after = path.stat()
    if _log(path).exists() or (before.st_mtime_ns, before.st_size) != (after.st_mtime_ns, after.st_size):
        memory.close()
        return _as_writer(path)
    return memory


def _from_a_copy(path: Path) -> sqlite3.Connection:
    """Read a log that a killed process left in a read-only folder."""
    with tempfile.TemporaryDirectory() as folder:
        twin = Path(folder) / "copy.db"
        shutil.copyfile(path, twin)
        if _log(path).exists():
            shutil.copyfile(_log(path), _log(twin))
        return _as_writer(twin)


def _read(path: Path, way: str) -> sqlite3.Connection:
    memory = sqlite3.connect(":memory:", isolation_level=None)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?{way}", uri=True, timeout=20.0)) as source:
            source.backup(memory)
    except BaseException:
        memory.close()
        raise
    return memory


def _log(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")
