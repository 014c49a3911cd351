"""A disk that refuses: nothing paid for is dropped while the process lives, and nobody waits in vain."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kdproxy.core.models import Entry, Form, Tombstone
from kdproxy.core.ports import Batch, Intent
from kdproxy.errors import StorageFailed
from kdproxy.storage import writer as writer_module
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.disk import DiskStore
from kdproxy.storage.journal import Journal
from kdproxy.storage.log_files import ACTIVE_NAME
from kdproxy.storage.memory import MemoryStore

MakeEntry = Callable[..., Entry]
LONG = b"x" * 300_000


@pytest.fixture
def archive(small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileArchive]:
    """An archive whose journal lies on the small disk, and its index beside it on a large one."""
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.02)
    journal = Journal(small_disk, segment_bytes=1 << 30)
    archive = FileArchive(journal, lambda: DiskStore(tmp_path / "index"), memory_bytes=1 << 20)
    yield archive
    archive.close()


@pytest.mark.asyncio
async def test_a_refused_answer_is_written_once_the_disk_heals(
    archive: FileArchive, ballast: Any, make_entry: MakeEntry, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    assert await archive.keep(make_entry(0))
    before = (small_disk / ACTIVE_NAME).read_bytes()
    ballast.fill()
    entries = [make_entry(number, body=LONG + b"%d" % number) for number in (1, 2)]
    assert await asyncio.gather(*(archive.keep(entry) for entry in entries)) == [False, False]
    assert archive.is_writable is False
    assert (small_disk / ACTIVE_NAME).read_bytes() == before  # nothing partial remains
    assert archive.find(make_entry(0).address, Form.JSON) == make_entry(0).answer
    assert archive.find(entries[0].address, Form.JSON) is None
    waiters = [asyncio.ensure_future(archive.wait_writable()) for _ in range(3)]
    await asyncio.sleep(0)
    assert not any(waiter.done() for waiter in waiters)
    ballast.free()
    await asyncio.wait_for(asyncio.gather(*waiters), 10)
    assert archive.is_writable
    assert [archive.find(entry.address, Form.JSON) for entry in entries] == [entry.answer for entry in entries]
    assert len(list(archive.lines())) == 4, "with the first line of the life"
    await asyncio.wait_for(archive.wait_writable(), 1)
    messages = [record.message for record in caplog.records]
    assert messages.count("the disk refuses to store answers") == 1
    assert messages.count("the disk stores answers again") == 1


@pytest.mark.asyncio
async def test_want_of_memory_is_a_refusal_too(
    archive: FileArchive, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group of long answers is joined for one write: where that fails, the writer must not die of it."""

    def fail(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as short:
        short.setattr(Journal, "append", fail)
        async with asyncio.timeout(10):
            assert not await archive.keep(make_entry(0))
        assert archive.trouble == "The disk refuses (MemoryError)."
    await asyncio.wait_for(archive.wait_writable(), 10)
    assert archive.find(make_entry(0).address, Form.JSON) == make_entry(0).answer


@pytest.mark.asyncio
async def test_a_withdrawal_that_had_to_wait_empties_the_memory_too(
    archive: FileArchive, ballast: Any, make_entry: MakeEntry
) -> None:
    """The forgotten answer is served while the tombstone waits; it must not be served after."""
    entry = make_entry(0)
    assert await archive.keep(entry)
    ballast.fill()
    address = entry.address
    reason = LONG.decode()  # too long for what is left of the last page
    tombstone = Tombstone(
        namespace=address.namespace, key=address.key, ordinal=0, kind="answer", reason=reason, created_at=1.0
    )
    assert not await archive.keep(tombstone)
    assert archive.find(address, Form.JSON) == entry.answer  # and is in memory again
    ballast.free()
    await asyncio.wait_for(archive.wait_writable(), 10)
    assert archive.find(address, Form.JSON) is None


@pytest.mark.asyncio
async def test_a_superseding_answer_that_had_to_wait_replaces_the_one_in_memory(
    archive: FileArchive, ballast: Any, make_entry: MakeEntry
) -> None:
    assert await archive.keep(make_entry(0, body=b"old"))
    ballast.fill()
    newer = make_entry(0, body=LONG)
    assert not await archive.keep(newer, intent=Intent.REFRESH)
    found = archive.find(newer.address, Form.JSON)
    assert found is not None
    assert found.body == b"old"
    ballast.free()
    await asyncio.wait_for(archive.wait_writable(), 10)
    assert archive.find(newer.address, Form.JSON) == newer.answer


def test_a_job_learns_that_nothing_was_kept(archive: FileArchive, ballast: Any, make_entry: MakeEntry) -> None:
    ballast.fill()
    with pytest.raises(StorageFailed) as caught:
        archive.revise(lambda: [archive.seal(make_entry(0, body=LONG))])
    assert caught.value.retryable
    ballast.free()
    archive.revise(lambda: [archive.seal(make_entry(1))])
    assert archive.find(make_entry(1).address, Form.JSON) == make_entry(1).answer


def test_what_still_waits_is_written_at_the_end(
    archive: FileArchive, ballast: Any, make_entry: MakeEntry, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 60.0)
    ballast.fill()
    assert not asyncio.run(archive.keep(make_entry(0, body=LONG)))
    ballast.free()
    archive.close()
    again = FileArchive(Journal(small_disk, segment_bytes=1 << 30), MemoryStore, memory_bytes=0)
    assert again.find(make_entry(0).address, Form.JSON) == make_entry(0, body=LONG).answer
    again.close()


def test_what_the_disk_refuses_to_the_end_is_reported(
    archive: FileArchive, ballast: Any, make_entry: MakeEntry, caplog: pytest.LogCaptureFixture
) -> None:
    ballast.fill()
    assert not asyncio.run(archive.keep(make_entry(0, body=LONG)))
    archive.close()
    assert "answers lost" in caplog.text
    with pytest.raises(StorageFailed, match="closed"):
        asyncio.run(archive.keep(make_entry(1)))


@pytest.mark.asyncio
async def test_an_index_without_room_loses_nothing(
    small_disk: Path, ballast: Any, tmp_path: Path, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other way round: the journal has room, the index has none. The answers are durable and found."""
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.02)
    monkeypatch.setattr(writer_module, "INDEX_SECONDS", 0.01)
    journal = tmp_path / "journal"
    journal.mkdir()

    def open_archive() -> FileArchive:
        return FileArchive(
            Journal(journal, segment_bytes=1 << 30), lambda: DiskStore(small_disk / "index"), memory_bytes=0
        )

    archive = open_archive()
    assert await archive.keep(make_entry(0))
    ballast.fill()
    number = 0
    while archive.is_writable:
        number += 1
        await archive.keep(make_entry(number, upstream="u" * 200))
        assert number < 5_000
    entries = [make_entry(0), *(make_entry(place, upstream="u" * 200) for place in range(1, number + 1))]
    assert all(archive.find(entry.address, Form.JSON) == entry.answer for entry in entries)
    ballast.free()
    await asyncio.wait_for(archive.wait_writable(), 10)
    assert all(archive.find(entry.address, Form.JSON) == entry.answer for entry in entries)
    archive.close()
    archive = open_archive()
    assert (archive.report.indexed_lines, archive.report.is_rebuilt) == (0, False)
    assert all(archive.find(entry.address, Form.JSON) == entry.answer for entry in entries)
    archive.close()


class Stubborn(MemoryStore):
    """A store that refuses batches: `answers` says yes or no to the next ones, then it is yes."""

    def __init__(self, *answers: bool) -> None:
        super().__init__()
        self.answers = list(answers)

    def apply(self, batch: Batch) -> None:
        if self.answers and not self.answers.pop(0):
            raise StorageFailed("no", hint="")
        super().apply(batch)


def test_sums_are_right_after_an_index_that_refused(
    tmp_path: Path, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 0.01)
    store = Stubborn(False, False, False)
    archive = FileArchive(Journal(tmp_path, segment_bytes=1 << 30), lambda: store, memory_bytes=0)
    for number in range(3):
        assert asyncio.run(archive.keep(make_entry(number)))
    while store.answers:
        archive.snapshot()
    assert dict(archive.snapshot().answers) == {"openai": 3}
    archive.close()


def test_the_watermark_never_runs_ahead_of_the_rows(
    tmp_path: Path, make_entry: MakeEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows that wait go into the index with the watermark that covers them, or none does."""
    monkeypatch.setattr(writer_module, "RETRY_SECONDS", 60.0)
    store = Stubborn(*[False] * 100)
    archive = FileArchive(Journal(tmp_path, segment_bytes=1 << 30), lambda: store, memory_bytes=0)
    entries = [make_entry(number) for number in range(1_200)]
    archive.revise(lambda: [archive.seal(entry) for entry in entries])
    assert not archive.is_writable
    assert (list(store.scan("s/")), store.watermark()) == ([], None)
    # What a start after a kill makes of this: the same journal, and the index as it is now.
    store.answers.clear()
    again = FileArchive(Journal(tmp_path, segment_bytes=1 << 30), lambda: store, memory_bytes=0)
    assert all(again.find(entry.address, Form.JSON) == entry.answer for entry in entries)
    again.close()
    archive.close()
