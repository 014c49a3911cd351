"""What became of the journal while nobody looked: noticed at the next start, and never bought again in silence."""

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from kdproxy.core.models import Entry, Form
from kdproxy.errors import StorageFailed
from kdproxy.storage import manifest as manifest_module
from kdproxy.storage.directory import DataDirectory
from kdproxy.storage.log_files import ACTIVE_NAME
from kdproxy.storage.manifest import Manifest

MakeEntry = Callable[..., Entry]
SEGMENT_BYTES = 2_000
PER_SEGMENT = 3
"""Entries that fill a segment; the last is in the active file."""


def segment(number: int) -> str:
    return f"api_recovery.{number:06d}.jsonl"


def opened(path: Path, *, accepts_loss: bool = False) -> DataDirectory:
    return DataDirectory.open(path, command="test", segment_bytes=SEGMENT_BYTES, accepts_loss=accepts_loss)


def fill(path: Path, entries: list[Entry]) -> None:
    directory = opened(path)
    for entry in entries:
        assert asyncio.run(directory.archive.keep(entry))
    directory.close()


@pytest.fixture
def entries(make_entry: MakeEntry) -> list[Entry]:
    return [make_entry(number, body=b"%d" % number * 600) for number in range(10)]


@pytest.fixture
def data(tmp_path: Path, entries: list[Entry]) -> Path:
    """Ten answers in at least three sealed segments and the active file."""
    fill(tmp_path / "data", entries)
    assert (tmp_path / "data" / segment(3)).exists()
    assert (tmp_path / "data" / ACTIVE_NAME).stat().st_size
    return tmp_path / "data"


def found(directory: DataDirectory, entries: list[Entry]) -> list[int]:
    return [number for number, entry in enumerate(entries) if directory.archive.find(entry.address, Form.JSON)]


def numbers_in(path: Path) -> list[int]:
    """Which entries stand in a file."""
    return [int(orjson.loads(line)["key"], 16) for line in path.read_bytes().splitlines()]


def told(caplog: pytest.LogCaptureFixture) -> str:
    """Everything that was logged, fields included."""
    return "\n".join(str({**vars(record), "message": record.getMessage()}) for record in caplog.records)


def test_a_manifest_says_what_each_sealed_segment_held(data: Path) -> None:
    import hashlib

    written = orjson.loads((data / manifest_module.NAME).read_bytes())
    assert written["format"] == 1
    sealed = sorted(path for path in data.iterdir() if manifest_module.SEALED.fullmatch(path.name))
    assert {name: (found["bytes"], found["sha256"]) for name, found in written["segments"].items()} == {
        path.name: (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest()) for path in sealed
    }


def test_what_did_not_change_is_not_read(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(manifest_module, "_segment", fail)
    directory = opened(data)
    assert directory.archive.report.indexed_lines == 0
    directory.close()


@pytest.mark.parametrize("how", ["edited in place", "replaced", "emptied"])
def test_an_edited_segment_is_read_again(
    data: Path, entries: list[Entry], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = data / segment(2)
    gone, *rest = path.read_bytes().splitlines(keepends=True)
    number = int(orjson.loads(gone)["key"], 16)
    left = b"" if how == "emptied" else b"".join(rest)
    if how == "replaced":
        (data / "new").write_bytes(left)
        (data / "new").rename(path)
    else:
        path.write_bytes(left)
    directory = opened(data)
    lost = [number] if how != "emptied" else [number, *(int(orjson.loads(line)["key"], 16) for line in rest)]
    assert found(directory, entries) == [each for each in range(len(entries)) if each not in lost]
    directory.close()
    assert segment(2) in told(caplog)
    assert f"'known': {len(entries)}, 'found': {len(entries) - len(lost)}" in told(caplog)
    caplog.clear()
    directory = opened(data)  # it is told once
    assert directory.archive.report.indexed_lines == 0
    assert caplog.text == ""
    directory.close()


def test_a_touched_or_copied_segment_is_read_once_and_is_no_change(
    data: Path, tmp_path: Path, entries: list[Entry], caplog: pytest.LogCaptureFixture
) -> None:
    os.utime(data / segment(1), ns=(1, 1))
    shutil.copytree(data, tmp_path / "copy")
    for path in (data, tmp_path / "copy"):
        directory = opened(path)
        assert directory.archive.report.indexed_lines == 0
        assert found(directory, entries) == list(range(len(entries)))
        directory.close()
        assert Manifest.load(path).rescan(trusts_inodes=True) is False
    assert caplog.text == ""


def test_a_segment_that_is_gone_is_reported_and_its_number_stays_free(
    data: Path, tmp_path: Path, entries: list[Entry], caplog: pytest.LogCaptureFixture
) -> None:
    last = max(path.name for path in data.iterdir() if manifest_module.SEALED.fullmatch(path.name))
    kept = tmp_path / last
    held = numbers_in(data / last)
    (data / last).rename(kept)
    directory = opened(data)
    assert found(directory, entries) == [number for number in range(len(entries)) if number not in held]
    assert last in told(caplog)
    assert "--accept-loss" in told(caplog)
    for entry in entries:  # bought again, more than a segment of it
        assert asyncio.run(directory.archive.keep(entry))
    directory.close()
    assert not (data / last).exists()
    kept.rename(data / last)
    directory = opened(data)
    assert found(directory, entries) == list(range(len(entries)))
    directory.close()
    assert Manifest.load(data).missing == ()


def test_a_loss_that_was_accepted_is_not_reported_again(data: Path, entries: list[Entry]) -> None:
    (data / segment(1)).unlink()
    directory = opened(data)
    assert directory.manifest.missing == (segment(1),)
    directory.close()
    opened(data, accepts_loss=True).close()
    assert Manifest.load(data).missing == ()


@pytest.mark.parametrize("number", [0, 2, 9])
def test_a_segment_that_was_added_is_read(
    data: Path, tmp_path: Path, make_entry: MakeEntry, entries: list[Entry], number: int
) -> None:
    """Of another directory, wherever its number falls."""
    fill(tmp_path / "other", [make_entry(77)])
    if number == 2:
        (data / segment(2)).unlink()
        opened(data).close()
    shutil.copy(tmp_path / "other" / ACTIVE_NAME, data / segment(number))
    directory = opened(data)
    assert directory.archive.find(make_entry(77).address, Form.JSON) is not None
    assert number == 2 or found(directory, entries) == list(range(len(entries)))
    directory.close()


def test_a_directory_of_an_earlier_release_gets_its_manifest(
    data: Path, entries: list[Entry], caplog: pytest.LogCaptureFixture
) -> None:
    written = (data / manifest_module.NAME).read_bytes()
    (data / manifest_module.NAME).unlink()
    sql(data / "index" / "cache.db", "DELETE FROM Cache WHERE key = 'segments'")
    directory = opened(data)
    assert directory.archive.report.indexed_lines == 0
    directory.close()
    assert (data / manifest_module.NAME).read_bytes() == written
    assert caplog.text == ""


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"format":1}', b'{"format":9,"segments":{}}', b'{"format":1,"segments":{"x":1}}']
)
def test_a_damaged_manifest_is_made_anew(data: Path, entries: list[Entry], text: bytes) -> None:
    written = (data / manifest_module.NAME).read_bytes()
    (data / manifest_module.NAME).write_bytes(text)
    directory = opened(data)
    assert found(directory, entries) == list(range(len(entries)))
    directory.close()
    assert (data / manifest_module.NAME).read_bytes() == written


def test_a_kill_amid_the_reading_again_leaves_it_to_the_next_start(
    data: Path, entries: list[Entry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest must not know the edited segment before the index does."""
    (data / segment(1)).write_bytes(b"")
    from kdproxy.storage import directory as directory_module

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(directory_module, "FileArchive", killed)
        with pytest.raises(KeyboardInterrupt):
            opened(data)
    directory = opened(data)
    assert 0 not in found(directory, entries)
    assert found(directory, entries)
    directory.close()


# -- the journal is gone --------------------------------------------------------------------------------------


def lose(path: Path, how: str) -> None:
    match how:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "torn":
            path.write_bytes(b'{"v":1,"kind":"answer"')
        case "new":
            path.unlink()
            path.touch()


@pytest.mark.parametrize("how", ["missing", "empty", "torn", "new"])
@pytest.mark.parametrize("segments", ["kept", "gone"])
def test_a_journal_that_is_gone_stops_the_start(data: Path, entries: list[Entry], how: str, segments: str) -> None:
    active = data / ACTIVE_NAME
    kept = {path: path.read_bytes() for path in data.iterdir() if path.name.startswith("api_recovery")}
    if segments == "gone":
        for path in kept:
            path.unlink()
        active.touch()
    lose(active, how)
    before = active.read_bytes() if active.exists() else None
    for _ in range(2):
        with pytest.raises(StorageFailed) as caught:
            opened(data)
        assert caught.value.code == "journal_lost"
        assert f"{len(entries)} answers ({len(entries)} of openai)" in caught.value.message
        assert "Restore" in caught.value.hint
        assert f"--accept-loss --data-dir {data}" in caught.value.hint
        assert (active.read_bytes() if active.exists() else None) == before
    for path, text in kept.items():
        path.write_bytes(text)
    directory = opened(data)
    assert found(directory, entries) == list(range(len(entries)))
    directory.close()


def test_a_loss_can_be_accepted(data: Path, entries: list[Entry]) -> None:
    held = numbers_in(data / ACTIVE_NAME)
    (data / ACTIVE_NAME).unlink()
    directory = opened(data, accepts_loss=True)
    assert found(directory, entries) == [number for number in range(len(entries)) if number not in held]
    directory.close()
    directory = opened(data)
    assert directory.archive.report.indexed_lines == 0
    directory.close()


def test_an_index_that_knew_nothing_stops_nobody(tmp_path: Path) -> None:
    opened(tmp_path / "data").close()
    (tmp_path / "data" / ACTIVE_NAME).unlink()
    opened(tmp_path / "data").close()


def test_a_seal_that_a_kill_cut_short_is_no_loss(data: Path, entries: list[Entry]) -> None:
    """Its one moment without an active file: the full one has its new name, the next has not yet taken the old."""
    last = Manifest.load(data).last_number + 1
    (data / ACTIVE_NAME).rename(data / segment(last))
    directory = opened(data)
    assert found(directory, entries) == list(range(len(entries)))
    directory.close()
    assert Manifest.load(data).last_number == last


def test_a_backup_that_is_older_than_the_index_is_reported(
    tmp_path: Path, entries: list[Entry], caplog: pytest.LogCaptureFixture
) -> None:
    data = tmp_path / "data"
    fill(data, entries[:2])
    backup = (data / ACTIVE_NAME).read_bytes()
    fill(data, entries[2:4])
    shutil.copy(data / ACTIVE_NAME, tmp_path / "newer")
    for path in data.glob("api_recovery.0*"):
        path.unlink()
    (data / ACTIVE_NAME).write_bytes(backup)
    directory = opened(data)
    assert found(directory, entries) == [0, 1]
    directory.close()
    assert "fewer answers than its index knew" in caplog.text


# -- an index that is no good ---------------------------------------------------------------------------------


def spoil(index: Path, how: str) -> None:
    database = index / "cache.db"
    text = database.read_bytes()
    match how:
        case "no database":
            database.write_bytes(b"not a database" * 1_000)
        case "cut":
            database.write_bytes(text[: len(text) // 2])
        case "a bad page":
            database.write_bytes(text[:4096] + b"\xff" * 4096 + text[8192:])
        case "empty":
            database.write_bytes(b"")
        case "a foreign setting":
            sql(database, "INSERT INTO Settings (key, value) VALUES ('sqlite_x', 1)")
        case "an older table":
            sql(database, "ALTER TABLE Cache RENAME COLUMN value TO content")
        case "an older row":
            sql(database, "UPDATE Cache SET value = CAST('[1]' AS BLOB) WHERE key = 'watermark'")
        case "a pickle":
            sql(database, "UPDATE Cache SET mode = 4 WHERE key = 'counters'")
        case "gone":
            shutil.rmtree(index)


def sql(database: Path, statement: str) -> None:
    import sqlite3

    connection = sqlite3.connect(database)
    with connection:
        connection.execute(statement)
    connection.close()


SPOILT = [
    "no database",
    "cut",
    "a bad page",
    "empty",
    "a foreign setting",
    "an older table",
    "an older row",
    "a pickle",
    "gone",
]


@pytest.mark.parametrize("how", SPOILT)
def test_an_index_that_is_no_good_is_made_anew(data: Path, entries: list[Entry], how: str) -> None:
    (data / "index" / "notes.txt").write_text("of the user")
    spoil(data / "index", how)
    for _ in range(2):
        directory = opened(data)
        assert found(directory, entries) == list(range(len(entries)))
        assert directory.archive.counters.total == len(entries)
        directory.close()
    assert how == "gone" or (data / "index" / "notes.txt").read_text() == "of the user"
