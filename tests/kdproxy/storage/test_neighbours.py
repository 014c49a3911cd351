"""What else may happen to a data directory: other paths to it, copies, other users of the disk, deletion."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdproxy.core.models import Entry, Form
from kdproxy.errors import DirectoryBusy, DirectoryReadOnly, StorageFailed
from kdproxy.storage.directory import DataDirectory
from kdproxy.storage.lock import read_owner

MakeEntry = Callable[..., Entry]


def opened(path: Path) -> DataDirectory:
    return DataDirectory.open(path, command="test", segment_bytes=2_000)


def keep(directory: DataDirectory, *entries: Entry) -> None:
    for entry in entries:
        assert asyncio.run(directory.archive.keep(entry))


def has(directory: DataDirectory, *entries: Entry) -> bool:
    return all(directory.archive.find(entry.address, Form.JSON) == entry.answer for entry in entries)


@pytest.mark.parametrize("how", ["link", "link above", "bind", "dots"])
def test_another_path_leads_to_the_same_lock(tmp_path: Path, how: str) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    directory = opened(data)
    match how:
        case "link":
            other.symlink_to(data)
        case "link above":
            (tmp_path / "above").symlink_to(tmp_path)
            other = tmp_path / "above" / "data"
        case "dots":
            other = tmp_path / "data" / ".." / "data"
        case "bind":
            other.mkdir()
            if os.getuid() != 0 or subprocess.run(["mount", "--bind", data, other], check=False).returncode:
                pytest.skip("no right to mount here")
    try:
        with pytest.raises(DirectoryBusy, match=str(os.getpid())):
            opened(other)
    finally:
        if how == "bind":
            subprocess.run(["umount", other], check=True)
        directory.close()


def test_a_copy_made_while_it_was_written_is_a_directory_of_its_own(tmp_path: Path, make_entry: MakeEntry) -> None:
    """Its lock names a living process, and its index may be of another moment than its journal."""
    entries = [make_entry(number, body=b"x" * 700) for number in range(8)]
    directory = opened(tmp_path / "data")
    keep(directory, *entries[:4])
    shutil.copytree(tmp_path / "data", tmp_path / "copy")
    keep(directory, *entries[4:6])
    copy = opened(tmp_path / "copy")
    keep(copy, *entries[6:])
    assert has(copy, *entries[:4], *entries[6:])
    assert not has(copy, entries[4])
    for each in (directory, copy):
        each.close()
    directory = opened(tmp_path / "data")
    assert has(directory, *entries[:6])
    assert not has(directory, entries[6])
    directory.close()


def test_a_copied_index_beside_another_journal_is_made_anew(tmp_path: Path, make_entry: MakeEntry) -> None:
    entries = [make_entry(number, body=b"%d" % number * 900) for number in range(8)]
    for name, kept in (("a", entries[:4]), ("b", entries[4:])):
        directory = opened(tmp_path / name)
        keep(directory, *kept)
        directory.close()
    shutil.rmtree(tmp_path / "b" / "index")
    shutil.copytree(tmp_path / "a" / "index", tmp_path / "b" / "index")
    directory = opened(tmp_path / "b")
    assert has(directory, *entries[4:])
    assert not has(directory, entries[0])
    assert directory.archive.counters.total == 4
    directory.close()


@pytest.mark.parametrize("name", [".gitignore", "lock", "segments.json", "index/cache.db", "index/cache.db-wal"])
def test_a_file_of_no_bytes_costs_nothing(tmp_path: Path, make_entry: MakeEntry, name: str) -> None:
    """A power cut leaves such, and so does a full disk."""
    entries = [make_entry(number, body=b"x" * 700) for number in range(5)]
    directory = opened(tmp_path / "data")
    keep(directory, *entries)
    directory.close()
    (tmp_path / "data" / name).write_bytes(b"")
    for _ in range(2):
        directory = opened(tmp_path / "data")
        assert has(directory, *entries)
        directory.close()


def test_a_directory_that_is_deleted_under_it_is_reported_and_what_is_read_stays(
    tmp_path: Path, make_entry: MakeEntry
) -> None:
    data = tmp_path / "data"
    directory = opened(data)
    keep(directory, make_entry(0))
    shutil.rmtree(data)
    assert has(directory, make_entry(0))
    assert not asyncio.run(directory.archive.keep(make_entry(1)))
    assert directory.archive.trouble is not None
    assert "deleted" in directory.archive.trouble
    # Another may start at that path at once; the first one neither writes there nor takes its lock away.
    other = opened(data)
    keep(other, make_entry(2))
    owner = read_owner(data)
    directory.close()
    assert read_owner(data) == owner
    assert has(other, make_entry(2))
    other.close()


def test_a_new_directory_on_a_full_disk_leaves_nothing_behind(small_disk: Path, ballast: Any) -> None:
    ballast.fill()
    with pytest.raises(DirectoryReadOnly, match="No space left"):
        opened(small_disk / "data")
    assert not (small_disk / "data").exists()
    ballast.free()
    opened(small_disk / "data").close()
    assert (small_disk / "data" / ".gitignore").read_text() == "*\n"


@pytest.mark.parametrize("how", ["closed", "killed", "index gone", "other segment times"])
def test_what_is_stored_is_found_on_a_full_disk(
    small_disk: Path, ballast: Any, make_entry: MakeEntry, how: str
) -> None:
    """And written again as soon as there is room."""
    data = small_disk / "data"
    entries = [make_entry(number, body=b"x" * 700) for number in range(6)]
    directory = opened(data)
    keep(directory, *entries)
    if how == "killed":  # the index lacks what was kept last, and its write-ahead log is there
        shutil.copytree(data, small_disk / "killed")
        directory.close()
        data = small_disk / "killed"
    else:
        directory.close()
    if how == "index gone":
        shutil.rmtree(data / "index")
    if how == "other segment times":
        os.utime(data / "api_recovery.000001.jsonl", ns=(1, 1))
    ballast.fill()
    directory = opened(data)
    assert has(directory, *entries)
    assert not asyncio.run(directory.archive.keep(make_entry(9, body=b"y" * 9_000)))
    ballast.free()
    asyncio.run(asyncio.wait_for(directory.archive.wait_writable(), 20))
    assert has(directory, make_entry(9, body=b"y" * 9_000))
    directory.close()
    directory = opened(data)
    assert has(directory, *entries, make_entry(9, body=b"y" * 9_000))
    directory.close()


def test_an_index_that_cannot_be_opened_is_kept_in_memory(
    tmp_path: Path, make_entry: MakeEntry, caplog: pytest.LogCaptureFixture
) -> None:
    """Another tool left a file of its user, or something that is no file, where the database should be."""
    data = tmp_path / "data"
    directory = opened(data)
    keep(directory, make_entry(0))
    directory.close()
    shutil.rmtree(data / "index")
    (data / "index" / "cache.db").mkdir(parents=True)
    for number in (1, 2):
        directory = opened(data)
        keep(directory, make_entry(number))
        assert has(directory, *(make_entry(each) for each in range(number + 1)))
        directory.close()
    assert caplog.text.count("kept in memory until the next start") == 2
    assert (data / "index" / "cache.db").is_dir()
    (data / "index" / "cache.db").rmdir()
    directory = opened(data)
    assert has(directory, *(make_entry(each) for each in range(3)))
    assert directory.archive.report.is_rebuilt is False
    directory.close()


def test_a_damaged_description_is_reported(tmp_path: Path) -> None:
    opened(tmp_path / "data").close()
    (tmp_path / "data" / "directory.json").write_bytes(b"")
    with pytest.raises(StorageFailed) as caught:
        opened(tmp_path / "data")
    assert "Move it away" in caught.value.hint
    (tmp_path / "data" / "directory.json").unlink()
    opened(tmp_path / "data").close()
