"""What other programs do to a data directory, as people have reported it: nothing is lost or bought again unseen."""

import asyncio
import gzip
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from kdproxy.core.models import Entry, Form
from kdproxy.errors import DirectoryBusy, StorageFailed
from kdproxy.storage.directory import DataDirectory
from kdproxy.storage.log_files import ACTIVE_NAME
from kdproxy.storage.reading import ReadOnlyDirectory

MakeEntry = Callable[..., Entry]
SEALED = "api_recovery.000001.jsonl"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1234\n"
PAGE = b"<!DOCTYPE html>\n<html><title>404</title></html>\n"


def opened(path: Path, *, segment_bytes: int = 2_000) -> DataDirectory:
    return DataDirectory.open(path, command="test", segment_bytes=segment_bytes)


@pytest.fixture
def entries(make_entry: MakeEntry) -> list[Entry]:
    return [make_entry(number, body=b"%d" % number * 600) for number in range(5)]


@pytest.fixture
def data(tmp_path: Path, entries: list[Entry]) -> Path:
    """Five answers, in a sealed segment and in the active file."""
    directory = opened(tmp_path / "data")
    for entry in entries:
        assert asyncio.run(directory.archive.keep(entry))
    directory.close()
    assert (tmp_path / "data" / SEALED).exists()
    assert (tmp_path / "data" / ACTIVE_NAME).stat().st_size
    return tmp_path / "data"


def found(directory: DataDirectory, entries: list[Entry]) -> int:
    return sum(directory.archive.find(entry.address, Form.JSON) is not None for entry in entries)


def state(path: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in path.iterdir() if each.is_file() and each.name != "lock"}


@pytest.mark.parametrize("has_index", [True, False])
@pytest.mark.parametrize("name", [ACTIVE_NAME, SEALED])
@pytest.mark.parametrize("content", [POINTER, PAGE], ids=["pointer", "page"])
def test_another_file_in_place_of_the_journal_stops_the_start(
    data: Path, entries: list[Entry], content: bytes, name: str, has_index: bool
) -> None:
    """A clone without Git LFS (git-lfs#3598, micasense/imageprocessing#58); a download that got an error page."""
    (data / name).rename(data.parent / "copy")
    (data / name).write_bytes(content)
    if not has_index:
        shutil.rmtree(data / "index")
        (data / "segments.json").unlink()
    before = state(data)
    with pytest.raises(StorageFailed) as refused:
        opened(data)
    with pytest.raises(StorageFailed, match=name):
        ReadOnlyDirectory.open(data)
    assert (refused.value.code, state(data)) == ("journal_foreign", before)
    assert ("git lfs pull" in refused.value.hint) == (content is POINTER)
    (data.parent / "copy").rename(data / name)
    directory = opened(data)
    assert found(directory, entries) == 5
    directory.close()


@pytest.mark.parametrize("content", [b"", b"\0" * 5_000, b'{"v":2,"kind":"sta'])
def test_what_a_kill_or_a_power_cut_leaves_of_the_first_line_stops_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ACTIVE_NAME).write_bytes(content)
    opened(tmp_path / "data").close()


def test_line_ends_that_git_has_changed_lose_nothing(data: Path, entries: list[Entry]) -> None:
    """core.autocrlf (synthaea-lab/edr-new#196, apache/lucene#12961)."""
    for path in data.glob("api_recovery*.jsonl"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    directory = opened(data)
    assert (found(directory, entries), directory.archive.report.damage) == (5, ())
    directory.close()


def test_the_marks_of_a_git_conflict_lose_nothing(data: Path, entries: list[Entry]) -> None:
    ours = (data / ACTIVE_NAME).read_bytes()
    (data / ACTIVE_NAME).write_bytes(b"<<<<<<< HEAD\n" + ours + b"=======\n" + ours + b">>>>>>> theirs\n")
    directory = opened(data)
    assert (found(directory, entries), len(directory.archive.report.damage)) == (5, 3)
    directory.close()


@pytest.mark.parametrize("segment_bytes", [1_000, 1 << 20], ids=["full", "not full"])
def test_a_journal_that_is_cut_while_it_is_written_waits_for_its_copy(
    data: Path, entries: list[Entry], make_entry: MakeEntry, segment_bytes: int
) -> None:
    """logrotate with copytruncate (logrotate#34, fluent-bit#375): also where the file is due to be sealed."""
    directory = opened(data, segment_bytes=segment_bytes)
    journal, copy = data / ACTIVE_NAME, data / f"{ACTIVE_NAME}.1"
    shutil.copy(journal, copy)
    os.truncate(journal, 0)

    async def keep() -> None:
        assert not await directory.archive.keep(make_entry(9))
        assert "became shorter" in str(directory.archive.trouble)
        assert not journal.stat().st_size
        with journal.open("wb") as file:
            file.write(copy.read_bytes())  # cat COPY > FILE
        await directory.archive.wait_writable()

    asyncio.run(asyncio.wait_for(keep(), 10))
    assert found(directory, [*entries, make_entry(9)]) == 6
    directory.close()


@pytest.mark.parametrize(
    "name",
    [
        "api_recovery.sync-conflict-20260101-120000-ABCDEFG.jsonl",  # syncthing#2282
        "api_recovery (my laptop's conflicted copy 2026-01-01).jsonl",  # QOwnNotes#1589
        f"{SEALED}.gz",
        f"{ACTIVE_NAME}.1",
        f"{ACTIVE_NAME}-20260101",
    ],
)
def test_copies_that_other_programs_made_are_named_at_the_start(
    data: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    raw = (data / SEALED).read_bytes()
    (data / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    (data / f"{ACTIVE_NAME}.bak").write_bytes(raw)  # a copy that its user made
    opened(data).close()
    said = [each.__dict__["files"] for each in caplog.records if "beside the journal" in each.getMessage()]
    assert said == [name]


def test_a_lock_file_that_a_cleaner_deleted_lets_no_second_process_in(data: Path) -> None:
    """systemd-tmpfiles deletes files that are open and locked (systemd#30760)."""
    first = opened(data)
    (data / "lock").unlink()
    with pytest.raises(DirectoryBusy):
        opened(data)
    first.close()
    opened(data).close()


def test_a_lock_of_our_own_process_number_is_no_owner(data: Path) -> None:
    """In containers each process has the number 1 (stellar-core#652, DaveyHert/Dishylink#48)."""
    directory = opened(data)
    owner = directory.owner
    directory.close()
    left = {"pid": os.getpid(), "host": owner.host, "started_at": 1.0, "beat_at": 1.0, "address": None}
    (data / "lock").write_bytes(orjson.dumps({**left, "token": "x", "command": "serve"}))
    opened(data).close()


@pytest.fixture(autouse=True)
def warnings_are_caught(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="kdproxy.storage")
