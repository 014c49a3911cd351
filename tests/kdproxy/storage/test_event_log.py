"""The events log on real files: what a kill, a power cut, a full disk and a merge leave of it."""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.core.call_event import Ended, Sent
from kdproxy.core.line import is_whole
from kdproxy.core.models import Address, Entry, LineName
from kdproxy.errors import CallNotRecorded, StorageFailed
from kdproxy.storage import event_log, event_reading
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.disk import DiskStore
from kdproxy.storage.journal import Journal

Reopen = Callable[..., FileArchive]
MakeEntry = Callable[..., Entry]


def sent(question: int = 0) -> Sent:
    return Sent(upstream="t", sent_at=time.time(), question=Address("default", f"{question:032x}"), model="m")


def ended(call: LineName, outcome: str = "refused", billed: str = "no") -> Ended:
    return Ended(call=call, outcome=outcome, billed=billed, ended_at=time.time(), seconds=1.0)


def open_in(directory: Path, **settings: Any) -> FileArchive:
    journal = Journal(directory, segment_bytes=1 << 30, **settings)
    return FileArchive(journal, lambda: DiskStore(directory / "index"), memory_bytes=0)


def sums(archive: FileArchive) -> dict[str, Any]:
    found = archive.calls.state().as_dict()
    return {name: found[name] for name in ("sent", "kept", "ended", "in_flight", "in_flight_at_kill", "unreadable")}


def answer(archive: FileArchive, entry: Entry, call: LineName) -> None:
    assert asyncio.run(archive.keep(entry._replace(call=str(call))))


def some_calls(archive: FileArchive, make_entry: MakeEntry) -> dict[str, Any]:
    """Two that were kept, one refused, one cut, one in flight."""
    log = archive.calls
    for number in range(2):
        answer(archive, make_entry(number), log.sent(sent(number)))
    log.ended(ended(log.sent(sent(2))))
    log.ended(ended(log.sent(sent(3)), "maybe_billed", "maybe"))
    log.sent(sent(4))
    ends = {"maybe_billed": 1, "refused": 1}
    return {"sent": 5, "kept": 2, "ended": ends, "in_flight": 0, "in_flight_at_kill": 1, "unreadable": 0}


def lines(path: Path) -> list[dict[str, Any]]:
    raw = path.read_bytes()
    assert all(map(is_whole, raw.splitlines(keepends=True)))
    return [orjson.loads(line) for line in raw.splitlines()]


def test_nothing_is_written_before_a_call(tmp_path: Path, reopen: Reopen) -> None:
    archive = reopen()
    assert sums(archive)["sent"] == 0
    archive.close()
    assert not (tmp_path / "events.jsonl").exists()


def test_what_has_no_end_was_in_flight_when_the_process_was_killed(
    tmp_path: Path, reopen: Reopen, make_entry: MakeEntry
) -> None:
    archive = reopen()
    expected = some_calls(archive, make_entry)
    assert sums(archive) == {**expected, "in_flight": 1, "in_flight_at_kill": 0}
    for _ in range(3):
        archive = reopen()
        assert sums(archive) == expected
    state = archive.calls.state()
    assert [each["key"] for each in state.as_dict()["killed_calls"]] == [f"{4:032x}"]
    assert {int(question.key, 16): found.calls for question, found in state.failed_questions.items()} == {3: 1, 4: 1}
    found = lines(tmp_path / "events.jsonl")
    assert [each["kind"] for each in found] == ["start", "sent", "sent", "sent", "ended", "sent", "ended", "sent"]
    assert (tmp_path / "events.jsonl").stat().st_mode & 0o777 == 0o600
    journal = lines(tmp_path / "api_recovery.jsonl")
    assert journal[0] == found[0], "a life's first line is the same in both logs"
    assert [each["call"] for each in journal[1:]] == [f"{each['origin']}/{each['seq']}" for each in found[1:3]]


@pytest.mark.parametrize("what", ["index", "events"])
def test_the_sums_are_made_anew_from_the_logs(
    tmp_path: Path, reopen: Reopen, make_entry: MakeEntry, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    expected = some_calls(reopen(), make_entry)
    reopen().close()
    if what == "index":
        shutil.rmtree(tmp_path / "index")
        assert sums(reopen()) == expected
    else:
        (tmp_path / "events.jsonl").unlink()
        assert sums(reopen())["sent"] == 0
        assert "the events log is missing" in caplog.text


def test_a_start_reads_what_came_after_the_index(tmp_path: Path, make_entry: MakeEntry) -> None:
    """The index of a kill is behind both logs: as it was copied before the last calls."""
    archive = open_in(tmp_path)
    first = archive.calls.sent(sent(0))
    other = archive.calls.sent(sent(1))
    answer(archive, make_entry(9), archive.calls.sent(sent(9)))
    archive.snapshot()  # writes the index
    shutil.copytree(tmp_path / "index", tmp_path / "before")
    answer(archive, make_entry(0), first)
    archive.calls.ended(ended(other))
    last = archive.calls.sent(sent(2))
    archive.close()
    shutil.rmtree(tmp_path / "index")
    (tmp_path / "before").rename(tmp_path / "index")
    archive = open_in(tmp_path)
    found = sums(archive)
    assert (found["sent"], found["kept"], found["ended"], found["in_flight_at_kill"]) == (4, 2, {"refused": 1}, 1)
    assert [each["call"] for each in archive.calls.state().as_dict()["killed_calls"]] == [str(last)]
    archive.close()


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (0, 1, 0, 1), (1, 1, 0)])
def test_two_directories_put_together_count_each_call_once(
    tmp_path: Path, make_entry: MakeEntry, order: tuple[int, ...]
) -> None:
    directories = [tmp_path / "one", tmp_path / "two"]
    for directory in directories:
        directory.mkdir()
        archive = open_in(directory)
        some_calls(archive, make_entry)
        archive.close()
    merged = tmp_path / "merged"
    merged.mkdir()
    for name in ("api_recovery.jsonl", "events.jsonl"):
        (merged / name).write_bytes(b"".join((directories[each] / name).read_bytes() for each in order))
    expected = {"sent": 10, "kept": 4, "ended": {"maybe_billed": 2, "refused": 2}, "in_flight": 0}
    expected |= {"in_flight_at_kill": 2, "unreadable": 0}
    archive = open_in(merged)
    assert sums(archive) == expected
    archive.close()
    # The other's logs put behind those of a directory that has an index, by mistake twice.
    for name in ("api_recovery.jsonl", "events.jsonl"):
        with (directories[0] / name).open("ab") as file:
            file.write(2 * (directories[1] / name).read_bytes())
    archive = open_in(directories[0])
    assert sums(archive) == expected
    archive.close()


def test_segments_are_sealed_by_size_and_read_as_one_log(tmp_path: Path, reopen: Reopen) -> None:
    archive = reopen(segment_bytes=2_000)

    async def call_often() -> None:
        for number in range(40):
            call = archive.calls.sent(sent(number))
            archive.calls.ended(ended(call))
            await archive.calls.settle()

    asyncio.run(call_often())
    archive = reopen(segment_bytes=2_000)
    assert len(list(tmp_path.glob("events.0*.jsonl"))) > 5
    assert (sums(archive)["sent"], sums(archive)["ended"]) == (40, {"refused": 40})
    (tmp_path / "events.000002.jsonl").unlink()
    shutil.rmtree(tmp_path / "index")
    assert 30 < sums(reopen(segment_bytes=2_000))["sent"] < 40


def test_what_reads_changes_no_byte(tmp_path: Path, make_entry: MakeEntry) -> None:
    archive = open_in(tmp_path)
    some_calls(archive, make_entry)
    archive.close()
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'{"v":2,"kind":"sent"')
    before = (tmp_path / "events.jsonl").read_bytes(), (tmp_path / "events.jsonl").stat().st_mtime_ns
    journal = Journal(tmp_path, segment_bytes=1 << 62, is_read_only=True)
    archive = FileArchive(journal, lambda: DiskStore(tmp_path / "copy"), memory_bytes=0)
    assert sums(archive)["in_flight_at_kill"] == 1
    archive.close()
    assert ((tmp_path / "events.jsonl").read_bytes(), (tmp_path / "events.jsonl").stat().st_mtime_ns) == before


def test_a_full_disk_lets_no_call_out_and_keeps_the_ends_in_memory(
    small_disk: Path, ballast: Any, make_entry: MakeEntry
) -> None:
    archive = open_in(small_disk)

    async def use() -> None:
        log = archive.calls
        first = log.sent(sent(0))
        ballast.fill()
        started: list[LineName] = []

        def send_on() -> None:
            while True:  # until the file's last page is full
                started.append(log.sent(sent(1)))

        with pytest.raises(CallNotRecorded, match="No space left"):
            send_on()
        assert not archive.is_writable
        assert "No space left" in (archive.trouble or "")
        log.ended(ended(first))
        await log.settle()
        ballast.free()
        await archive.wait_writable()
        for call in started:
            log.ended(ended(call))
        log.ended(ended(log.sent(sent(2))))
        await log.settle()
        assert sums(archive)["sent"] == len(started) + 2

    asyncio.run(use())
    archive.close()
    assert all(each["kind"] != "x" for each in lines(small_disk / "events.jsonl"))
    archive = open_in(small_disk)
    assert sums(archive)["in_flight_at_kill"] == 0
    archive.close()


def test_lines_that_a_sync_refused_are_written_again_and_count_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_entry: MakeEntry
) -> None:
    archive = open_in(tmp_path)
    real, left = Journal.sync, [2]

    def failing(self: Journal) -> None:
        if left[0]:
            left[0] -= 1
            raise StorageFailed("The events log could not be written.", hint="x")
        real(self)

    monkeypatch.setattr(Journal, "sync", failing)

    async def use() -> None:
        archive.calls.ended(ended(archive.calls.sent(sent())))
        await archive.calls.settle()
        assert archive.trouble == "The events log could not be written."
        await archive.wait_writable()

    asyncio.run(use())
    archive.close()
    found = lines(tmp_path / "events.jsonl")
    assert len({each["seq"] for each in found}) < len(found)
    for loses_index in (False, True):
        if loses_index:
            shutil.rmtree(tmp_path / "index")
        archive = open_in(tmp_path)
        assert (sums(archive)["sent"], sums(archive)["ended"]) == (1, {"refused": 1})
        archive.close()


def test_many_who_wait_share_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = open_in(tmp_path)
    syncs = []
    real = Journal.sync
    monkeypatch.setattr(Journal, "sync", lambda self: (syncs.append(1), real(self))[1])

    async def one(number: int) -> None:
        archive.calls.ended(ended(archive.calls.sent(sent(number))))
        await archive.calls.settle()

    async def all_at_once() -> None:
        await asyncio.gather(*(one(number) for number in range(200)))

    asyncio.run(all_at_once())
    assert 1 <= len(syncs) < 100
    archive.close()


def test_a_file_that_was_moved_away_is_noticed(tmp_path: Path) -> None:
    archive = open_in(tmp_path)

    async def use() -> None:
        archive.calls.sent(sent())
        os.rename(tmp_path / "events.jsonl", tmp_path / "elsewhere")
        await archive.calls.settle()
        assert "moved" in (archive.trouble or "")
        with pytest.raises(CallNotRecorded):
            archive.calls.sent(sent())
        os.rename(tmp_path / "elsewhere", tmp_path / "events.jsonl")
        await archive.wait_writable()
        archive.calls.sent(sent())

    asyncio.run(use())
    archive.close()


@pytest.mark.parametrize("how", ["edited", "added", "removed", "copied"])
def test_a_sealed_segment_that_changed_is_read_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    def opened() -> FileArchive:
        return FileArchive(
            Journal(tmp_path, segment_bytes=2_000), lambda: DiskStore(tmp_path / "index"), memory_bytes=0
        )

    archive = opened()

    async def call_often() -> None:
        for number in range(20):
            archive.calls.ended(ended(archive.calls.sent(sent(number))))
            await archive.calls.settle()

    asyncio.run(call_often())
    archive.close()
    archive = opened()
    assert sums(archive)["sent"] == 20
    archive.close()
    assert "read again" not in caplog.text
    first, second = tmp_path / "events.000001.jsonl", tmp_path / "events.000002.jsonl"
    raw, count = first.read_bytes(), first.read_bytes().count(b'"kind":"sent"')
    match how:
        case "edited":
            first.write_bytes(raw.replace(b'"refused"', b'"refusex"', 1))
        case "added":
            (tmp_path / "events.000999.jsonl").write_bytes(raw)
        case "removed":
            second.unlink()
        case "copied":
            os.utime(first)
    archive = opened()
    assert "segments of the events log were edited, added or removed" in caplog.text
    found = sums(archive)
    if how == "edited":
        assert (found["sent"], found["in_flight_at_kill"], found["unreadable"]) == (20, 1, 1)
    elif how == "removed":
        assert found["sent"] < 20
    else:
        assert (found["sent"], found["ended"]) == (20, {"refused": 20}), count
    archive.close()


def test_without_answers_the_index_follows_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "MOST_UNROWED", 20)
    archive = open_in(tmp_path)

    async def call_often() -> None:
        for number in range(15):
            archive.calls.ended(ended(archive.calls.sent(sent(number))))
            await archive.calls.settle()

    asyncio.run(call_often())
    row = archive.look_up([event_reading.ROW])[0]
    assert row is not None
    assert orjson.loads(row)["sums"][0] >= 9
    archive.close()
    with contextlib.closing(DiskStore(tmp_path / "index")) as store:
        row = store.get(event_reading.ROW)
    assert row is not None
    assert orjson.loads(row)["sums"][0] == 15
