"""Group commit: nobody is told before the sync, and many share one."""

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdproxy.core.models import Entry, Form
from kdproxy.storage import journal as journal_module
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.disk import DiskStore
from kdproxy.storage.journal import Journal
from tests.kdproxy.sample import keep_all

MakeEntry = Callable[..., Entry]


def open_archive(directory: Path) -> FileArchive:
    return FileArchive(
        Journal(directory, segment_bytes=1 << 30), lambda: DiskStore(directory / "index"), memory_bytes=0
    )


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[FileArchive]:
    archive = open_archive(tmp_path)
    yield archive
    archive.close()


def body(archive: FileArchive, entry: Entry) -> bytes | None:
    answer = archive.find(entry.address, entry.answer.form)
    return None if answer is None else answer.body


def test_concurrent_keeps_share_syncs(
    archive: FileArchive, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = threading.Event()
    syncs: list[int] = []
    sync = os.fdatasync if hasattr(os, "fdatasync") else os.fsync

    def counted(descriptor: int) -> None:
        syncs.append(os.fstat(descriptor).st_size)
        gate.wait(10)
        sync(descriptor)

    monkeypatch.setattr(journal_module, "sync", counted)
    entries = [make_entry(number) for number in range(200)]

    async def keep_together() -> list[bool]:
        tasks = [asyncio.ensure_future(archive.keep(entry)) for entry in entries]
        while not syncs:
            assert not any(task.done() for task in tasks)
            await asyncio.sleep(0)
        assert not any(task.done() for task in tasks)
        assert archive.find(entries[0].address, Form.JSON) is None  # not before it is durable
        gate.set()
        return await asyncio.gather(*tasks)

    assert all(asyncio.run(keep_together()))
    assert len(syncs) <= 3
    assert all(body(archive, entry) for entry in entries)


def test_keeping_nothing_is_no_write(archive: FileArchive) -> None:
    keep_all(archive, [])
    assert list(archive.lines()) == []


def test_what_is_kept_at_the_end_is_written_before_close_returns(
    archive: FileArchive, make_entry: MakeEntry, tmp_path: Path
) -> None:
    async def keep_and_close() -> list[bool]:
        tasks: list[Awaitable[bool]] = [asyncio.ensure_future(archive.keep(make_entry(number))) for number in range(20)]
        await asyncio.sleep(0)
        await asyncio.to_thread(archive.close)
        return await asyncio.gather(*tasks)

    assert all(asyncio.run(keep_and_close()))
    again = open_archive(tmp_path)
    assert again.report.indexed_lines == 0
    assert all(body(again, make_entry(number)) for number in range(20))
    again.close()


def test_a_failed_start_leaves_no_file_open(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "cache.db").write_bytes(b"not a database" * 100)
    fds = Path("/proc/self/fd")
    if not fds.exists():
        pytest.skip("no /proc here")
    before = {os.readlink(fd) for fd in fds.iterdir() if fd.exists()}
    with pytest.raises(Exception, match="index"):
        open_archive(tmp_path)
    opened: set[Any] = {os.readlink(fd) for fd in fds.iterdir() if fd.exists()} - before
    assert not [path for path in opened if str(tmp_path) in path]
