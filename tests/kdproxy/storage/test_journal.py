"""The journal's files: what was acknowledged is there, what was not leaves nothing behind."""

import errno
import os
import random
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kdproxy.core.ports import Location
from kdproxy.errors import StorageFailed
from kdproxy.storage import journal as under_test
from kdproxy.storage.journal import Journal
from kdproxy.storage.log_files import ACTIVE_NAME

LINES = [b'{"line":1}\n', '{"zwei":"Grüße"}\n'.encode(), b'{"line":"three, and longer"}\n']
MANY = 1 << 30

Open = Callable[..., Journal]


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Open]:
    opened: list[Journal] = []

    def open_journal(*, segment_bytes: int = MANY, directory: Path = tmp_path) -> Journal:
        opened.append(Journal(directory, segment_bytes=segment_bytes))
        return opened[-1]

    yield open_journal
    for journal in opened:
        journal.close()


def written(journal: Journal) -> list[bytes]:
    return [line.raw for line in journal.lines()]


def test_a_line_is_read_back_from_where_it_lies(reopen: Open, tmp_path: Path) -> None:
    journal = reopen()
    first = journal.append(LINES[:1])
    others = journal.append(LINES[1:])
    assert [journal.read(location) for location in [*first, *others]] == LINES
    assert [location.offset for location in [*first, *others]] == [0, len(LINES[0]), len(LINES[0] + LINES[1])]
    assert (tmp_path / ACTIVE_NAME).read_bytes() == b"".join(LINES)
    assert journal.size_bytes == journal.segment_size(1) == len(b"".join(LINES))
    assert written(reopen()) == LINES


def test_only_the_owner_can_read_it(reopen: Open, tmp_path: Path) -> None:
    reopen(segment_bytes=1).append(LINES)
    reopen(segment_bytes=1).seal_if_full()
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


def test_a_full_segment_is_sealed_and_locations_stay_right(reopen: Open, tmp_path: Path) -> None:
    journal = reopen(segment_bytes=60)
    placed: dict[Location, bytes] = {}
    for number in range(30):
        journal.seal_if_full()
        line = b'{"number":%d}\n' % number
        placed |= dict.fromkeys(journal.append([line]), line)
    assert journal.segments() == [1, 2, 3, 4, 5, 6]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *(f"api_recovery.{number:06d}.jsonl" for number in range(1, 6)),
        ACTIVE_NAME,
    ]
    for reader in (journal, reopen(segment_bytes=60)):
        assert {location: reader.read(location) for location in placed} == placed
        assert written(reader) == list(placed.values())
        assert [line.location for line in reader.lines()] == list(placed)
        assert reader.size_bytes == sum(map(len, placed.values()))
        assert {reader.name(location.segment) for location in placed} == {path.name for path in tmp_path.iterdir()}


def test_lines_start_anywhere(reopen: Open) -> None:
    journal = reopen(segment_bytes=1)
    placed: list[Location] = []
    for line in LINES:
        journal.seal_if_full()
        placed += journal.append([line])
    assert len(journal.segments()) == 3
    for place, location in enumerate(placed):
        found = [line.raw for line in journal.lines(segment=location.segment, offset=location.offset)]
        assert found == LINES[place:]
    assert [*journal.lines(segment=3, offset=len(LINES[2]))] == []
    assert [*journal.lines(segment=9)] == []


@pytest.mark.parametrize("read_bytes", [1, 2, 7, 64])
def test_lines_do_not_depend_on_how_the_file_is_read(
    reopen: Open, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(under_test, "_READ_BYTES", read_bytes)
    journal = reopen()
    placed = journal.append([*LINES, b"\n", b"x" * 100 + b"\n"])
    assert written(journal) == [*LINES, b"\n", b"x" * 100 + b"\n"]
    assert [line.location for line in journal.lines()] == placed


def test_a_line_without_end_is_damage_not_memory(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(under_test, "MAX_LINE_BYTES", 1 << 20)
    journal = reopen()
    journal.append([b"x" * (3 << 20)])
    with pytest.raises(StorageFailed, match="over"):
        written(journal)


@pytest.mark.parametrize("read_bytes", [1 << 20, 5])
def test_a_torn_tail_is_cut_at_every_place(
    reopen: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(under_test, "_READ_BYTES", read_bytes)
    whole = b"".join(LINES)
    for end in range(len(whole) + 1):
        (tmp_path / ACTIVE_NAME).write_bytes(whole[:end])
        journal = reopen()
        left = [line for line in whole[:end].splitlines(keepends=True) if line.endswith(b"\n")]
        assert journal.cut_torn_tail() == end - len(b"".join(left))
        assert journal.cut_torn_tail() == 0
        assert written(journal) == left
        assert (tmp_path / ACTIVE_NAME).read_bytes() == b"".join(left)
        [location] = journal.append([b"next\n"])
        assert written(journal) == [*left, b"next\n"]
        assert journal.read(location) == b"next\n"
        journal.close()


def test_an_unfinished_line_comes_without_its_break(reopen: Open, tmp_path: Path) -> None:
    (tmp_path / ACTIVE_NAME).write_bytes(b"whole\nhalf")
    assert written(reopen()) == [b"whole\n", b"half"]


def test_reading_past_the_end_gives_less(reopen: Open) -> None:
    journal = reopen()
    [location] = journal.append(LINES[:1])
    assert journal.read(Location(1, location.offset + 3, 1_000)) == LINES[0][3:]
    assert journal.read(Location(1, 1_000, 10)) == b""


def test_a_missing_segment_says_what_to_do(reopen: Open, tmp_path: Path) -> None:
    journal = reopen(segment_bytes=1)
    [location] = journal.append(LINES[:1])
    journal.seal_if_full()
    journal.close()
    journal = reopen()
    (tmp_path / "api_recovery.000001.jsonl").unlink()
    with pytest.raises(StorageFailed, match=r"api_recovery\.000001\.jsonl") as caught:
        journal.read(location)
    assert "verify" in caught.value.hint


def test_strangers_in_the_directory_are_left_alone(reopen: Open, tmp_path: Path) -> None:
    for name in ("api_recovery.1.jsonl", "api_recovery.000009.jsonl.bak", "xapi_recovery.000009.jsonl", "notes.txt"):
        (tmp_path / name).write_text("x")
    (tmp_path / "api_recovery.0000012.jsonl").write_bytes(LINES[0])
    journal = reopen()
    assert journal.segments() == [12, 13]
    assert journal.name(13) == ACTIVE_NAME


# -- a disk that refuses --------------------------------------------------------------------------------------

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from kdproxy.errors import StorageFailed
from kdproxy.storage.journal import Journal

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
journal = Journal(Path(sys.argv[1]), segment_bytes=1 << 30)
journal.append([b"first\\n"])
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, resource.RLIM_INFINITY))
for lines in ([b"x" * 2_000 + b"\\n"], [b"a\\n", b"y" * 5_000 + b"\\n"]):
    try:
        journal.append(lines)
        print("kept")
    except StorageFailed as error:
        print(error.retryable, journal.size_bytes)
[location] = journal.append([b"small\\n"])
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
[later] = journal.append([b"z" * 2_000 + b"\\n"])
print(journal.read(location), len(journal.read(later)), later.offset)
"""


def test_nothing_partial_remains_of_a_refused_append(tmp_path: Path, reopen: Open) -> None:
    """A limit on file size, as everybody can set one: the write stops in the middle of a line."""
    ran = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines() == ["True 6", "True 6", "b'small\\n' 2001 12"]
    assert written(reopen()) == [b"first\n", b"small\n", b"z" * 2_000 + b"\n"]


def test_a_full_disk_refuses_and_heals(small_disk: Path, reopen: Open) -> None:
    journal = reopen(directory=small_disk)
    journal.append([b"first\n"])
    (small_disk / "ballast").write_bytes(b"x" * (1 << 20))
    with pytest.raises(StorageFailed) as caught:
        journal.append([b"y" * (2 << 20) + b"\n"])
    assert caught.value.retryable
    assert (small_disk / ACTIVE_NAME).read_bytes() == b"first\n"
    (small_disk / "ballast").unlink()
    journal.append([b"second\n"])
    assert written(journal) == [b"first\n", b"second\n"]


def has_room(path: Path) -> bool:
    try:
        path.touch()
    except OSError:
        return False
    return True


def test_a_segment_that_cannot_be_started_is_started_later(small_disk: Path, reopen: Open) -> None:
    """No room for one more file, just when a segment is full."""
    journal = reopen(directory=small_disk, segment_bytes=1)
    [first] = journal.append(LINES[:1])
    fillers: list[Path] = []
    while has_room(small_disk / f"filler{len(fillers)}"):
        fillers.append(small_disk / f"filler{len(fillers)}")
    for _ in range(2):
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
            journal.seal_if_full()
        assert journal.read(first) == LINES[0]
        assert written(journal) == LINES[:1]
    for filler in fillers:
        filler.unlink()
    journal.seal_if_full()
    [second] = journal.append(LINES[1:2])
    assert [first.segment, second.segment] == [1, 2]
    assert [journal.read(first), journal.read(second)] == LINES[:2]
    assert written(reopen(directory=small_disk)) == LINES[:2]


@pytest.mark.parametrize("refused", ["rename", "sync"])
def test_a_segment_that_was_half_sealed_is_sealed_to_the_end_later(
    reopen: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """The full file has its sealed name already when the disk refuses: nothing may take its place."""
    journal = reopen(segment_bytes=1)
    [first] = journal.append(LINES[:1])
    rename = Path.rename
    killed: list[Path] = []

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def rename_but_the_next(path: Path, target: Path) -> Path:
        return rename(path, target) if path.name == ACTIVE_NAME else refuse()  # type: ignore[func-returns-value]

    with monkeypatch.context() as broken:
        if refused == "rename":
            broken.setattr(Path, "rename", rename_but_the_next)
        else:
            broken.setattr(under_test, "sync_directory", refuse)
        for _ in range(2):
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                journal.seal_if_full()
            assert journal.read(first) == LINES[0]
            assert written(journal) == LINES[:1]
            assert journal.size_bytes == len(LINES[0])
            killed.append(copied(tmp_path))
    assert [written(reopen(directory=directory)) for directory in killed] == [LINES[:1]] * 2
    journal.seal_if_full()
    [second] = journal.append(LINES[1:2])
    assert [first.segment, second.segment] == [1, 2]
    assert [journal.read(first), journal.read(second)] == LINES[:2]
    assert written(reopen()) == LINES[:2]


def copied(directory: Path) -> Path:
    return Path(shutil.copytree(directory, tempfile.mkdtemp(dir=directory.parent), dirs_exist_ok=True))


def test_an_append_whose_cut_failed_too_leaves_no_wrong_place(
    reopen: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that fails altogether refuses the cut as well; the junk goes before the next append."""
    journal = reopen()
    journal.append(LINES[:1])

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as broken:
        broken.setattr(under_test, "sync", refuse)
        broken.setattr(os, "ftruncate", refuse)
        with pytest.raises((StorageFailed, OSError)):
            journal.append([b"junk"])
    assert (tmp_path / ACTIVE_NAME).read_bytes() == LINES[0] + b"junk"
    [location] = journal.append(LINES[1:2])
    assert journal.read(location) == LINES[1]
    assert written(reopen()) == LINES[:2]


def test_lines_on_their_way_are_not_read(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """An export while the proxy runs sees whole lines only, though the file is longer while one is written."""
    journal = reopen()
    journal.append(LINES[:1])
    seen: list[list[bytes]] = []

    def look(_: int) -> None:
        seen.append(written(journal))

    monkeypatch.setattr(under_test, "sync", look)
    journal.append([b"half of a line"])
    assert seen == [LINES[:1]]


def test_every_append_is_synced_before_it_returns(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def record(descriptor: int) -> None:
        sizes.append(os.fstat(descriptor).st_size)

    monkeypatch.setattr(under_test, "sync", record)
    journal = reopen()
    rng = random.Random(1)
    total = 0
    for _ in range(20):
        batch = [b"x" * rng.randint(1, 50) + b"\n" for _ in range(rng.randint(1, 4))]
        total += sum(map(len, batch))
        journal.append(batch)
        assert sizes[-1] == total
    assert len(sizes) == 20


def test_threads_that_open_a_segment_at_once_leave_one_file_open(reopen: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = reopen(segment_bytes=1)
    [first] = journal.append(LINES[:1])
    journal.seal_if_full()
    reader = reopen(segment_bytes=1)
    both = threading.Barrier(2, timeout=10)
    opened: list[int] = []
    real = os.open

    def open_together(path: Path, flags: int) -> int:
        descriptor = real(path, flags)
        opened.append(descriptor)
        both.wait()
        return descriptor

    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as other:
        patch.setattr(os, "open", open_together)
        found = other.submit(reader.read, first)
        assert reader.read(first) == found.result(timeout=10) == LINES[0]
    assert sum(map(is_open, opened)) == 1


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_a_segment_that_is_sealed_while_they_are_listed_is_listed(
    reopen: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job lists them on its own thread; a segment left out would be exported as nothing and repaired away."""
    journal = reopen(segment_bytes=1)
    journal.append(LINES[:1])
    list_folder = Path.iterdir

    def seal_afterwards(folder: Path) -> Iterator[Path]:
        paths = list(list_folder(folder))
        monkeypatch.undo()
        journal.seal_if_full()
        journal.append(LINES[1:2])
        return iter(paths)

    monkeypatch.setattr(Path, "iterdir", seal_afterwards)
    assert written(journal)[:1] == LINES[:1]
    assert written(journal) == LINES[:2]
