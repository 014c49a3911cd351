"""Data directories as earlier releases left them: taken where they lie, and read without a change."""

import shutil
from pathlib import Path

import orjson
import pytest

from kdproxy.core.models import Address, Form
from kdproxy.errors import StorageFailed
from kdproxy.storage.directory import DataDirectory
from kdproxy.storage.reading import ReadOnlyDirectory

DATA = Path(__file__).parents[2] / "data"
ANSWERS = {0: "answer 0", 1: "a newer answer", 3: "answer 3", 4: "answer 4", 5: "answer 5"}
"""Of six; the second was superseded and the third withdrawn."""


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """Format 1: two sealed segments, an index of its time, no manifest."""
    return Path(shutil.copytree(DATA / "directory_v1", tmp_path / "data"))


def answers(directory: DataDirectory | ReadOnlyDirectory) -> dict[int, str]:
    found = {}
    for number in range(6):
        address = Address(namespace="default", key=f"{number:064x}", ordinal=0)
        answer = directory.archive.find(address, Form.JSON)
        if answer is not None:
            found[number] = orjson.loads(answer.body)["choices"][0]["message"]["content"]
    return found


def test_all_is_found_and_the_next_start_reads_nothing_again(earlier: Path) -> None:
    for is_first in (True, False):
        directory = DataDirectory.open(earlier, command="test")
        assert answers(directory) == ANSWERS
        assert directory.archive.counters.answers == {"teacher": len(ANSWERS)}
        assert directory.upstream_urls() == {"teacher": "http://teacher.example/v1"}
        assert (directory.archive.report.indexed_lines > 0) == is_first
        directory.close()
    assert len(orjson.loads((earlier / "segments.json").read_bytes())["segments"]) == 2
    assert orjson.loads((earlier / "directory.json").read_bytes())["format"] == 1, "nothing was written to its journal"
    for path in (DATA / "directory_v1").glob("api_recovery*"):
        assert (earlier / path.name).read_bytes() == path.read_bytes()


def test_todays_own_is_as_good_copied(tmp_path: Path) -> None:
    """Format 2, with a manifest whose times and inodes are of another disk."""
    data = Path(shutil.copytree(DATA / "directory_v2", tmp_path / "data"))
    for _ in range(2):
        directory = DataDirectory.open(data, command="test")
        assert answers(directory) == {number: f"answer {number}" for number in range(6)}
        assert directory.archive.report.indexed_lines == 0
        directory.close()
    written, found = (orjson.loads((each / "segments.json").read_bytes()) for each in (DATA / "directory_v2", data))
    assert written["segments"].keys() == found["segments"].keys()
    for name, segment in written["segments"].items():
        assert segment["sha256"] == found["segments"][name]["sha256"]


def test_it_is_read_without_a_change(earlier: Path) -> None:
    before = {path: (path.lstat(), path.is_file() and path.read_bytes()) for path in [earlier, *earlier.rglob("*")]}
    directory = ReadOnlyDirectory.open(earlier)
    assert answers(directory) == ANSWERS
    directory.close()
    after = {path: (path.lstat(), path.is_file() and path.read_bytes()) for path in [earlier, *earlier.rglob("*")]}
    # Times of reading are nobody's matter; every other field of lstat is.
    assert {path: (found[0][:7], found[0].st_mtime_ns, found[1]) for path, found in after.items()} == {
        path: (found[0][:7], found[0].st_mtime_ns, found[1]) for path, found in before.items()
    }


@pytest.mark.parametrize("name", ["directory.json", "lock", "index"])
def test_a_part_that_is_missing_costs_nothing(earlier: Path, name: str) -> None:
    path = earlier / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    directory = DataDirectory.open(earlier, command="test")
    assert answers(directory) == ANSWERS
    directory.close()


def test_its_index_is_believed_where_its_journal_is_gone(earlier: Path) -> None:
    (earlier / "api_recovery.jsonl").write_bytes(b"")
    for opened in (lambda: DataDirectory.open(earlier, command="test"), lambda: ReadOnlyDirectory.open(earlier)):
        with pytest.raises(StorageFailed, match=r"5 answers \(5 of teacher\)"):
            opened()  # type: ignore[no-untyped-call]


def test_a_sealed_segment_of_it_that_is_gone_is_no_loss_of_the_rest(earlier: Path) -> None:
    """There was no manifest then: what is missing can only be told from the index."""
    (earlier / "api_recovery.000001.jsonl").unlink()
    directory = DataDirectory.open(earlier, command="test")
    found = answers(directory)
    directory.close()
    assert found
    assert found.items() <= ANSWERS.items()
