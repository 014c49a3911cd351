"""The fence around diskcache: what others planted is refused, and nothing of it is run, read or removed."""

import os
import pickle
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdproxy.core.ports import Batch, Watermark
from kdproxy.errors import StorageFailed
from kdproxy.storage.disk import BytesDisk, DiskStore

RAW, BINARY, TEXT, PICKLE = 1, 2, 3, 4
MARK = Watermark(1, 10, "x")

Open = Callable[[], DiskStore]


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Open]:
    opened: list[DiskStore] = []

    def open_store() -> DiskStore:
        opened.append(DiskStore(tmp_path / "index"))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def planted(tmp_path: Path, reopen: Open) -> Callable[..., DiskStore]:
    """An index with one honest row and one planted by somebody else, opened anew."""

    def plant(
        *, key: Any = "a/evil", raw: int = 1, mode: int = RAW, filename: str | None = None, value: Any = b"1"
    ) -> DiskStore:
        store = reopen()
        store.apply(Batch(puts={"a/good": b"good"}, watermark=MARK))
        store.close()
        with sqlite3.connect(tmp_path / "index" / "cache.db") as database:
            database.execute(
                "INSERT INTO Cache (key, raw, mode, filename, value, store_time) VALUES (?, ?, ?, ?, ?, 0)",
                (key, raw, mode, filename, value),
            )
        database.close()
        return reopen()

    return plant


class Bomb:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self._trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._trace),)


def refuses(store: DiskStore, name: str) -> bool:
    with pytest.raises(StorageFailed, match="did not write"):
        store.get(name)
    with pytest.raises(StorageFailed, match="did not write"):
        list(store.scan(name))
    return store.get("a/good") == b"good"


def test_a_pickled_value_is_refused_and_not_loaded(planted: Callable[..., DiskStore], tmp_path: Path) -> None:
    bomb = pickle.dumps(Bomb(tmp_path / "trace"))
    assert refuses(planted(mode=PICKLE, value=bomb), "a/evil")
    assert not (tmp_path / "trace").exists()


def test_the_bomb_would_go_off_in_plain_diskcache(planted: Callable[..., DiskStore], tmp_path: Path) -> None:
    """The tests above and below prove something only if this one holds."""
    import diskcache

    planted(mode=PICKLE, value=pickle.dumps(Bomb(tmp_path / "trace"))).close()
    with diskcache.Cache(str(tmp_path / "index")) as cache:
        cache.get("a/evil")
    assert (tmp_path / "trace").exists()


@pytest.mark.parametrize("mode", [BINARY, TEXT, PICKLE, RAW, 0, 5])
@pytest.mark.parametrize("value", [None, b"1"])
def test_a_file_name_is_refused_and_not_opened(
    planted: Callable[..., DiskStore], tmp_path: Path, mode: int, value: bytes | None
) -> None:
    secret = tmp_path / "secret"
    os.mkfifo(secret)  # opening it would hang
    assert refuses(planted(mode=mode, filename="../secret", value=value), "a/evil")


@pytest.mark.parametrize("change", ["put", "delete", "clear"])
def test_a_file_that_a_row_names_is_never_removed(
    planted: Callable[..., DiskStore], tmp_path: Path, change: str
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    store = planted(mode=BINARY, filename="../victim", value=None)
    match change:
        case "put":
            store.apply(Batch(puts={"a/evil": b"2"}))
            assert store.get("a/evil") == b"2"
        case "delete":
            store.apply(Batch(puts={}, deletes=frozenset({"a/evil"})))
            assert store.get("a/evil") is None
        case _:
            store.clear()
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("value", ["text", 1, 1.5, None])
def test_a_value_of_another_type_is_refused(planted: Callable[..., DiskStore], value: object) -> None:
    assert refuses(planted(value=value), "a/evil")


def test_a_pickled_key_is_neither_loaded_nor_found(planted: Callable[..., DiskStore], tmp_path: Path) -> None:
    store = planted(key=pickle.dumps(Bomb(tmp_path / "trace")), raw=0)
    assert list(store.scan("a/")) == [("a/good", b"good")]
    assert [name for name, _ in store.scan("")] == ["a/good", "watermark/2"]
    store.clear()
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("key", [b"a/good", b"zzz", 5, 2.5])
def test_a_key_that_is_not_text_is_not_found(planted: Callable[..., DiskStore], key: object) -> None:
    store = planted(key=key)
    assert [name for name, _ in store.scan("")] == ["a/good", "watermark/2"]
    assert store.get("a/good") == b"good"


@pytest.mark.parametrize("name", ["sqlite_temp_store_directory", "sqlite_writable_schema", "disk_evil", "other"])
def test_foreign_settings_are_refused(reopen: Open, tmp_path: Path, name: str) -> None:
    reopen().close()
    with sqlite3.connect(tmp_path / "index" / "cache.db") as database:
        database.execute("INSERT INTO Settings VALUES (?, ?)", (name, "1"))
    database.close()
    with pytest.raises(StorageFailed, match=name) as caught:
        reopen()
    assert "rebuilt" in caught.value.hint


def test_our_settings_win_over_stored_ones(reopen: Open, tmp_path: Path) -> None:
    reopen().close()
    path = tmp_path / "index" / "cache.db"
    with sqlite3.connect(path) as database:
        database.execute("UPDATE Settings SET value = 'least-recently-used' WHERE key = 'eviction_policy'")
        database.execute(
            "UPDATE Settings SET value = 1 WHERE key IN ('size_limit', 'cull_limit', 'disk_min_file_size')"
        )
    database.close()
    store = reopen()
    store.apply(Batch(puts={f"a/{number}": b"x" * 100 for number in range(500)}))
    assert len(list(store.scan("a/"))) == 500
    with sqlite3.connect(path) as database:
        found = dict(database.execute("SELECT key, value FROM Settings"))
        modes = set(database.execute("SELECT DISTINCT mode, filename FROM Cache"))
    database.close()
    assert (found["eviction_policy"], found["cull_limit"], found["size_limit"]) == ("none", 0, 2**62)
    assert found["sqlite_journal_mode"] == "wal"
    assert modes == {(RAW, None)}
    assert [path.name for path in (tmp_path / "index").iterdir() if path.is_dir()] == []


def test_nothing_is_evicted(reopen: Open) -> None:
    store = reopen()
    value = b"x" * 1_000
    for start in range(0, 5_000, 500):
        store.apply(Batch(puts={f"a/{number:05d}": value for number in range(start, start + 500)}))
    store.close()
    store = reopen()
    assert sum(1 for _, found in store.scan("a/") if found == value) == 5_000


def test_only_text_and_bytes_get_in(tmp_path: Path) -> None:
    disk = BytesDisk(str(tmp_path))
    for key in (b"a", 1, 1.5, ("a",), None):
        with pytest.raises(TypeError):
            disk.put(key)
    for value in ("text", 1, None, ["a"], bytearray(b"a")):
        with pytest.raises(TypeError):
            disk.store(value, False)
    with pytest.raises(TypeError):
        disk.store(b"a", True)
    with pytest.raises(ValueError, match="did not write"):
        disk.get(b"key", 0)


def test_only_the_owner_can_read(reopen: Open, tmp_path: Path) -> None:
    store = reopen()
    store.apply(Batch(puts={"a": b"1"}, watermark=MARK))
    index = tmp_path / "index"
    assert stat.S_IMODE(index.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in index.iterdir()} == {0o600}
    assert {path.name for path in index.iterdir()} >= {"cache.db", "cache.db-wal"}


def test_only_our_own_files_are_closed_to_others(reopen: Open, tmp_path: Path) -> None:
    index, secret = tmp_path / "index", tmp_path / "elsewhere"
    index.mkdir()
    index.chmod(0o755)
    for path in (index / "notes.txt", secret):
        path.write_text("of the user")
        path.chmod(0o644)
    (index / "link").symlink_to(secret)
    reopen()
    assert stat.S_IMODE(index.stat().st_mode) == 0o755
    assert {stat.S_IMODE(path.stat().st_mode) for path in (index / "notes.txt", secret)} == {0o644}
    assert {stat.S_IMODE(path.stat().st_mode) for path in index.glob("cache.db*")} == {0o600}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(reopen: Open, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    os.chown(tmp_path / "index", 12345, 12345)
    with pytest.raises(StorageFailed, match="another user"):
        reopen()


def test_an_index_that_was_never_finished_is_started_anew(reopen: Open, tmp_path: Path) -> None:
    """A kill between the file's creation and its first table."""
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "cache.db").touch()
    store = reopen()
    assert store.watermark() is None
    store.apply(Batch(puts={"a": b"1"}))
    assert store.get("a") == b"1"


def test_a_file_that_is_no_database_says_what_to_do(reopen: Open, tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "cache.db").write_bytes(b"not a database" * 100)
    with pytest.raises(StorageFailed) as caught:
        reopen()
    assert "rebuilt" in caught.value.hint


def test_a_page_that_went_bad_is_a_storage_failure(reopen: Open, tmp_path: Path) -> None:
    store = reopen()
    store.apply(Batch(puts={f"a/{number:04d}": b"x" * 500 for number in range(2_000)}))
    store.close()
    path = tmp_path / "index" / "cache.db"
    damaged = bytearray(path.read_bytes())
    damaged[16_384:] = b"\xff" * (len(damaged) - 16_384)
    path.write_bytes(damaged)
    with pytest.raises(StorageFailed, match="index"):
        list(reopen().scan("a/"))


KILLED_IN_CLEAR = """
import os, signal, sys
from pathlib import Path
from kdproxy.core.ports import Batch, Watermark
from kdproxy.storage.disk import DiskStore

store = DiskStore(Path(sys.argv[1]))
store.apply(Batch(puts={f"a/{number:04d}": b"x" for number in range(1_000)}, watermark=Watermark(1, 10, "x")))
pages = 0

def count(statement):
    global pages
    pages += statement.startswith("SELECT rowid")
    if pages == 3:
        os.kill(os.getpid(), signal.SIGKILL)

store._cache._con.set_trace_callback(count)
store.clear()
"""


def test_a_clear_that_is_cut_short_leaves_everything(reopen: Open, tmp_path: Path) -> None:
    """Rows gone and the watermark left would look like an index that is up to date."""
    command = [sys.executable, "-c", KILLED_IN_CLEAR, str(tmp_path / "index")]
    assert subprocess.run(command, timeout=60, check=False).returncode == -signal.SIGKILL
    store = reopen()
    assert store.watermark() == MARK
    assert len(list(store.scan("a/"))) == 1_000


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from kdproxy.core.ports import Batch, Watermark
from kdproxy.errors import StorageFailed
from kdproxy.storage.disk import DiskStore

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
store = DiskStore(Path(sys.argv[1]))
store.apply(Batch(puts={"a": b"1"}, watermark=Watermark(1, 1, "x")))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
refused = 0
for number in range(3):
    try:
        store.apply(Batch(puts={f"b{number}": b"x" * 400_000, "a": b"2"}, watermark=Watermark(2, 2, "y")))
    except StorageFailed:
        refused += 1
print(refused, store.get("a"), store.get("b0"), store.watermark().segment)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
store.apply(Batch(puts={"b": b"x" * 400_000, "a": b"3"}, watermark=Watermark(3, 3, "z")))
print(len(store.get("b")), store.get("a"), store.watermark().segment)
store.close()
"""


def test_a_disk_that_refuses_leaves_the_store_as_it_was_and_usable(tmp_path: Path) -> None:
    """A limit on file size stands in for a full disk: SQLite meets both in the same place."""
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "index")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["3 b'1' None 1", "400000 b'3' 3"]
