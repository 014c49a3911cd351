"""The embedded index: diskcache behind a fence.

diskcache 5.6.3 unpickles what a row says is pickled (CVE-2025-69872), opens file names that a row gives, evicts
from 1 GiB on, and takes settings from the database itself. So: bytes only, no file names, every setting passed and
foreign ones refused, no eviction. One connection, of the writer thread, writes and checkpoints; readers are
read-only: SQLite before 3.51.3 can lose rows when two connections checkpoint at once (the WAL-reset bug).
"""

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import diskcache
import orjson

from kdproxy.core.ports import Batch, Watermark
from kdproxy.errors import DirectoryReadOnly, IndexDamaged, StorageFailed

_RAW = 1  # diskcache's MODE_RAW: the row holds the value unchanged
WATERMARK = "watermark/2"
"""The row of index format 2. A release that knows only format 1 finds no watermark and reads the journal."""
_SETTINGS: dict[str, Any] = {
    "statistics": 0,
    "tag_index": 0,
    "eviction_policy": "none",
    "size_limit": 2**62,
    "cull_limit": 0,
    "sqlite_auto_vacuum": 0,
    "sqlite_cache_size": 8_192,
    "sqlite_journal_mode": "wal",
    "sqlite_mmap_size": 2**26,
    # The index is derived from the journal, and its watermark is written with its rows: after a power cut it is
    # behind, never wrong. So NORMAL is enough here; the journal is what is synced.
    "sqlite_synchronous": 1,
    "disk_min_file_size": 2**62,
    "disk_pickle_protocol": 5,
}
_GET = "SELECT mode, filename, value FROM Cache WHERE key = ? AND raw = 1"
_GET_ALL = "SELECT key, mode, filename, value FROM Cache WHERE raw = 1 AND key IN ({})"
_SCAN = "SELECT key, mode, filename, value FROM Cache WHERE raw = 1 AND key >= ? ORDER BY key LIMIT ?"
DATABASE_FILES = (diskcache.core.DBNAME, f"{diskcache.core.DBNAME}-wal", f"{diskcache.core.DBNAME}-shm")
_DAMAGE = frozenset(
    (
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_SCHEMA,
        sqlite3.SQLITE_MISMATCH,
    )
)
"""Primary result codes of a file that is no database, or not one of ours (a missing table or column)."""
_PAGE_ROWS = 500
"""Every SQLite accepts 999 parameters."""
_KNOWN = frozenset(_SETTINGS) | {"count", "size", "hits", "misses"}
_PUT = (
    "INSERT INTO Cache (key, raw, store_time, access_time, access_count, size, mode, value)"
    " VALUES (?, 1, 0, 0, 0, 0, 1, ?) ON CONFLICT (key, raw) DO UPDATE"
    " SET value = excluded.value, mode = excluded.mode, filename = NULL, expire_time = NULL"
)
"""The row that diskcache's `set` would write (mode 1 is _RAW), in one statement instead of four: 178 to 46 us for one
row, 19 to 4.5 us a row among 500. The fence pins the release whose table this is."""
_DELETE = "DELETE FROM Cache WHERE key = ? AND raw = 1"
_READER_MMAP_BYTES = 256 << 20
"""Pages of the index are mapped into memory: a look-up takes 7 us instead of 14."""


class BytesDisk(diskcache.Disk):  # type: ignore[misc]  # diskcache has no types
    """Text keys and byte values in the row; anything else is refused, on writing and on reading."""

    def put(self, key: Any) -> tuple[Any, bool]:
        """Return the key as stored."""
        if type(key) is not str:
            raise TypeError("index names are text")
        return key, True

    def get(self, key: Any, raw: Any) -> Any:
        """Return a stored key."""
        if not raw or type(key) is not str:
            raise ValueError("the index holds a row that kdproxy did not write")
        return key

    def store(self, value: Any, read: bool, key: Any = None) -> tuple[int, int, None, Any]:
        """Return the columns of a value."""
        if type(value) is not bytes or read:
            raise TypeError("index values are bytes")
        return 0, _RAW, None, sqlite3.Binary(value)

    def fetch(self, mode: int, filename: str | None, value: Any, read: bool) -> bytes:
        """Return a stored value."""
        return _checked(mode, filename, value)

    def remove(self, file_path: str) -> None:
        """Remove nothing: no row of ours has a file, and a planted one may name any."""


class DiskStore:
    """diskcache as a Store. The constructor's thread must be the one that calls `apply`, `clear` and `close`."""

    def __init__(self, directory: Path) -> None:
        _prepare(directory)
        database = directory / diskcache.core.DBNAME
        with _translated(f"The index in {directory} cannot be opened"):
            if database.exists():
                with closing(_quiet_reader(database)) as connection:
                    _refuse_foreign_settings(connection)
            self._cache = diskcache.Cache(str(directory), timeout=10, disk=BytesDisk, **_SETTINGS)
            for name in DATABASE_FILES:
                _close_to_others(directory / name)
            self._writer_thread = threading.get_ident()
            self._loop_reader = _reader(database)
            self._writer_reader = _reader(database)

    @property
    def _reader(self) -> sqlite3.Connection:
        """The calling thread's connection: a shared one would make the loop wait for the writer."""
        return self._writer_reader if threading.get_ident() == self._writer_thread else self._loop_reader

    def get(self, name: str) -> bytes | None:
        """Return a value, or None."""
        try:
            row = self._reader.execute(_GET, (name,)).fetchone()
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _failure("The index cannot be read", error) from error
        return None if row is None else _checked(*row)

    def get_all(self, names: Sequence[str]) -> dict[str, bytes]:
        """Return the values of those names that have one."""
        found: dict[str, bytes] = {}
        for start in range(0, len(names), _PAGE_ROWS):
            page = names[start : start + _PAGE_ROWS]
            with _translated("The index cannot be read"):
                rows = self._reader.execute(_GET_ALL.format(",".join("?" * len(page))), page).fetchall()
            found.update((name, _checked(mode, filename, value)) for name, mode, filename, value in rows)
        return found

    def scan(self, prefix: str) -> Iterator[tuple[str, bytes]]:
        """Yield the names with a prefix, in name order, with their values."""
        after = prefix
        while True:
            # In pages, so that no read transaction stays open and holds up checkpoints.
            with _translated("The index cannot be read"):
                rows = self._reader.execute(_SCAN, (after, _PAGE_ROWS)).fetchall()
            for name, mode, filename, value in rows:
                # Keys that are not text sort after all text keys, so no key of ours follows.
                if type(name) is not str or not name.startswith(prefix):
                    return
                yield name, _checked(mode, filename, value)
            if len(rows) < _PAGE_ROWS:
                return
            after = rows[-1][0] + "\0"  # the smallest name after this one

    def watermark(self) -> Watermark | None:
        """Return the last applied watermark."""
        value = self.get(WATERMARK)
        return None if value is None else Watermark(*orjson.loads(value))

    def apply(self, batch: Batch) -> None:
        """Apply a batch in one transaction."""
        rows = list(batch.puts.items())
        if batch.watermark is not None:
            mark = batch.watermark
            rows.append((WATERMARK, orjson.dumps([mark.segment, mark.offset, mark.seal])))
        with _translated("The index could not be written"), self._cache.transact():
            connection = self._cache._con
            connection.executemany(_PUT, rows)
            connection.executemany(_DELETE, [(name,) for name in batch.deletes])

    def clear(self) -> None:
        """Drop everything in one transaction: a watermark without its rows would claim that they were read."""
        with _translated("The index could not be written"), self._cache.transact():
            self._cache.clear()

    def close(self) -> None:
        """Close all connections."""
        self._loop_reader.close()
        self._writer_reader.close()
        self._cache.close()


def peek(directory: Path, names: Sequence[str]) -> dict[str, bytes]:
    """Check an index that no process has open, and return the values of these names; empty if it does not exist.

    Takes 0.7 s for a million answers; otherwise a damaged page would first show up during a request.

    Raises:
        IndexDamaged: it is damaged, or kdproxy did not make it.
        StorageFailed: it cannot be read.
    """
    database = directory / diskcache.core.DBNAME
    if not database.exists():
        return {}
    with _translated(f"The index in {directory} cannot be opened"):
        connection = _quiet_reader(database)
        try:
            _refuse_foreign_settings(connection)
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'Cache'").fetchone():
                return {}  # a kill came between the file's creation and its first table
            [(verdict,)] = connection.execute("PRAGMA quick_check(1)").fetchall()
            if verdict != "ok":
                raise IndexDamaged(f"The index in {directory} is damaged ({verdict}).", hint="Restart: it is rebuilt.")
            rows = connection.execute(_GET_ALL.format(",".join("?" * len(names))), list(names)).fetchall()
        finally:
            connection.close()
    return {name: _checked(mode, filename, value) for name, mode, filename, value in rows}


def discard(directory: Path) -> None:
    """Remove an index that no process has open, and no other file beside it. Raises OSError."""
    for name in DATABASE_FILES:
        (directory / name).unlink(missing_ok=True)


@contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, diskcache.Timeout, OSError, UnicodeDecodeError) as error:
        raise _failure(what, error) from error


def _failure(what: str, error: Exception) -> StorageFailed:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary result code
    # sqlite3 has no code for text that is no UTF-8, and two exceptions.
    is_no_text = isinstance(error, UnicodeDecodeError) or "Could not decode" in str(error)
    is_damage = is_no_text or code in _DAMAGE
    kind = DirectoryReadOnly if code == sqlite3.SQLITE_FULL else IndexDamaged if is_damage else StorageFailed
    return kind(
        f"{what} ({error}).",
        hint="Free disk space if the disk is full. No answer is lost: a damaged index is rebuilt at the next start.",
    )


def _prepare(directory: Path) -> None:
    if not directory.is_dir():
        directory.mkdir(mode=0o700, parents=True)
    if hasattr(os, "getuid") and directory.stat().st_uid != os.getuid():
        raise StorageFailed(
            f"The index directory {directory} belongs to another user.",
            hint="Move it away: the index is derived data and is rebuilt.",
        )


def _close_to_others(file: Path) -> None:
    """Set mode 0600: SQLite creates its files with the umask's mode. No other file in the directory is changed.

    By name: opening and closing the database here would drop the locks that SQLite holds on it (fcntl(2)).
    """
    try:
        found = file.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o077:
        file.chmod(0o600)


def _quiet_reader(database: Path) -> sqlite3.Connection:
    """Open a database that no process has open; create no file if its write-ahead log is empty.

    On a full disk the two files of the log could not be created.
    """
    log = database.with_name(f"{database.name}-wal")
    is_settled = not (log.exists() and log.stat().st_size)
    return sqlite3.connect(f"{database.absolute().as_uri()}?mode=ro{'&immutable=1' if is_settled else ''}", uri=True)


def _reader(database: Path) -> sqlite3.Connection:
    # Used by one thread only, but opened by another.
    connection = sqlite3.connect(
        f"{database.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = 1")
    connection.execute(f"PRAGMA mmap_size = {_READER_MMAP_BYTES}")
    return connection


def _checked(mode: Any, filename: Any, value: Any) -> bytes:
    if mode != _RAW or filename is not None or type(value) is not bytes:
        raise IndexDamaged(
            "The index holds a row that kdproxy did not write.",
            hint="Restart: it is rebuilt from the journal.",
        )
    return value


def _refuse_foreign_settings(connection: sqlite3.Connection) -> None:
    """Allow only our own settings: diskcache applies every `sqlite_*` row of its Settings table as a PRAGMA."""
    try:
        names = {row[0] for row in connection.execute("SELECT key FROM Settings")}
    except sqlite3.OperationalError as error:
        if "no such table" not in str(error):
            raise
        names = set()  # a kill came between the file's creation and its first table
    if foreign := names - _KNOWN:
        raise IndexDamaged(
            f"The index holds settings that kdproxy did not write: {', '.join(sorted(map(str, foreign)))}.",
            hint="Restart: it is rebuilt from the journal.",
        )
