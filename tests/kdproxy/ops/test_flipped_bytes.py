"""A flipped bit in any file of a data directory: other bytes are never served, and `verify` names it.

An answer whose line is damaged is not found, so it is bought again. After a damaged index is rebuilt or repaired, or
removed where a repair of rows does not suffice, all answers are found.
"""

import os
import shutil
from collections import Counter
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest

from kdproxy.core.models import Entry, Form
from kdproxy.core.run_event import Opened, Used
from kdproxy.errors import KdproxyError, StorageFailed
from kdproxy.ops.verify import VerifyArguments
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.directory import DataDirectory
from kdproxy.storage.names import sample_name
from tests.kdproxy.ops.conftest import Shelf
from tests.kdproxy.sample import keep_all, numbered

SEGMENT_BYTES = 6_000
ENTRIES = [numbered(number, b'{"answer": %d}' % number * (number % 5 + 1)) for number in range(20)]
FILES = ("api_recovery.jsonl", "api_recovery.000001.jsonl", "events.jsonl", "index/cache.db")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("whole") / "data")


def build(path: Path) -> Path:
    """Make a data directory of several segments, closed in order."""
    with closing(DataDirectory.open(path, command="test", segment_bytes=SEGMENT_BYTES)) as directory:
        calls = directory.archive.calls
        attempt = calls.note(Opened("r", "1", 1790000000.0))
        for number, entry in enumerate(ENTRIES):
            keep_all(directory.archive, [entry])
            calls.note(Used(attempt, entry.address.key[:32], number))
    assert all((path / name).stat().st_size for name in FILES)
    return path


def wrong(archive: FileArchive) -> list[Entry]:
    """Return the entries for which other bytes are served."""
    return [entry for entry in ENTRIES if found(archive, entry) not in (None, entry.answer)]


def found(archive: FileArchive, entry: Entry) -> Any:
    try:
        return archive.find(entry.address, Form.JSON)
    except KdproxyError:  # an error for the client, who is served nothing
        return None


def flip(file: Path, rng: Random) -> int:
    text = bytearray(file.read_bytes())
    place = rng.randrange(len(text))
    text[place] ^= 1 << rng.randrange(8)
    before = file.stat()
    file.write_bytes(text)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # a disk that rots leaves size, time and inode
    return place


def after_flip(whole: Path, place: Path, name: str, rng: Random) -> str:
    """Flip a bit in a copy; return what came of it. Fails if other bytes are served or damage is not named."""
    shutil.copytree(whole, place)
    DataDirectory.open(place, command="test", segment_bytes=SEGMENT_BYTES).close()  # knows the copy's inodes
    where = f"{name} at {flip(place / name, rng)}"
    try:
        directory = DataDirectory.open(place, command="test", segment_bytes=SEGMENT_BYTES)
    except KdproxyError:
        return "start refused"
    with closing(directory):
        assert not wrong(directory.archive), where
        if name.startswith("index"):
            outcome = after_repair(Shelf(place, directory), where)
        else:
            lost = sum(found(directory.archive, entry) is None for entry in ENTRIES)
            assert lost <= 2, where
            checked = Shelf(place, directory).run(VerifyArguments()).result
            assert checked["problems"], f"{where} is not named: {checked}"
            return "named by verify"
    if outcome == "not repaired":
        shutil.rmtree(place / "index")
        with closing(DataDirectory.open(place, command="test", segment_bytes=SEGMENT_BYTES)) as directory:
            assert all(found(directory.archive, entry) == entry.answer for entry in ENTRIES), where
    return outcome


def after_repair(shelf: Shelf, where: str) -> str:
    """Repair an index. Damage within SQLite's own trees may be beyond a repair of rows; then `verify` still says so."""
    try:
        before = shelf.run(VerifyArguments(repair=True)).result["problems"]
        after = shelf.run(VerifyArguments()).result["problems"]
    except StorageFailed:
        return "not repaired"
    assert not wrong(shelf.archive), where
    if all(found(shelf.archive, entry) == entry.answer for entry in ENTRIES):
        return "repaired" if before else "rebuilt, or an unused byte"
    assert before or after, where
    return "not repaired"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("flips", [12, pytest.param(500, marks=pytest.mark.faults)])
def test_a_flipped_bit_is_never_served(whole: Path, tmp_path: Path, name: str, flips: int) -> None:
    rng = Random(flips)
    outcomes: Counter[str] = Counter()
    for number in range(flips):
        outcomes[after_flip(whole, tmp_path / str(number), name, rng)] += 1
        shutil.rmtree(tmp_path / str(number))
    print(f"seed={flips} flips={flips} {name} {dict(outcomes)} wrong=0")


@pytest.mark.parametrize("back", [1, 2, 3])
def test_the_end_of_an_events_line_is_named_too(whole: Path, tmp_path: Path, back: int) -> None:
    """Its last brace, quote and line break: they are no line that a power cut tore."""
    shutil.copytree(whole, tmp_path / "data")
    events = tmp_path / "data" / "events.jsonl"
    text = bytearray(events.read_bytes())
    text[text.index(b"\n", 1_000) + 1 - back] ^= 1
    events.write_bytes(text)
    with closing(DataDirectory.open(tmp_path / "data", command="test", segment_bytes=SEGMENT_BYTES)) as directory:
        assert Shelf(tmp_path / "data", directory).run(VerifyArguments()).result["event"] == 1


def test_a_checksum_that_is_not_compared_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of these tests: lines whose checksum says nothing."""
    monkeypatch.setattr("kdproxy.core.line.digest", lambda body: b"0" * 64)
    whole, rng = build(tmp_path / "whole"), Random(1)

    def flips() -> None:
        for number in range(100):
            after_flip(whole, tmp_path / str(number), "api_recovery.000001.jsonl", rng)

    with pytest.raises(AssertionError, match=r"at \d+"):
        flips()


@pytest.mark.parametrize("damage", [lambda row: row[:-3], lambda row: b"\xff\xff" + row[2:], lambda row: row + b"x"])
def test_a_damaged_row_of_the_index_is_a_miss_and_is_written_again(whole: Path, tmp_path: Path, damage: Any) -> None:
    shutil.copytree(whole, tmp_path / "data")
    with closing(DataDirectory.open(tmp_path / "data", command="test", segment_bytes=SEGMENT_BYTES)) as directory:
        archive, row = directory.archive, sample_name(ENTRIES[3].address)
        (value,) = archive.look_up([row])
        assert value is not None
        archive.note(row, damage(value))
        assert found(archive, ENTRIES[3]) is None
        keep_all(archive, [ENTRIES[4]])  # writing continues
        shelf = Shelf(tmp_path / "data", directory)
        problems = shelf.run(VerifyArguments(repair=True)).result["problems"]
        assert problems == 1
        assert found(archive, ENTRIES[3]) == ENTRIES[3].answer
