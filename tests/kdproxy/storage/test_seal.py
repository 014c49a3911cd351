"""Sealing a full segment: no file is replaced, no number given twice."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kdproxy.storage.journal import Journal
from kdproxy.storage.log_files import ACTIVE_NAME

LINES = [b'{"line":1}\n', '{"zwei":"Grüße"}\n'.encode(), b'{"line":"three, and longer"}\n']

Open = Callable[..., Journal]


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[Open]:
    opened: list[Journal] = []

    def open_journal(*, segment_bytes: int = 1 << 30) -> Journal:
        opened.append(Journal(tmp_path, segment_bytes=segment_bytes))
        return opened[-1]

    yield open_journal
    for journal in opened:
        journal.close()


def written(journal: Journal) -> list[bytes]:
    return [line.raw for line in journal.lines()]


@pytest.mark.parametrize("kind", ["file", "link", "directory"])
def test_sealing_replaces_no_file_of_others(
    reopen: Open, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    """Somebody copied a segment of another directory in: it is kept, and so is every line of ours."""
    journal = reopen(segment_bytes=1)
    [first] = journal.append(LINES[:1])
    foreign, target = tmp_path / "api_recovery.000001.jsonl", tmp_path / "target"
    target.write_bytes(b"theirs\n")
    match kind:
        case "file":
            foreign.write_bytes(b"theirs\n")
        case "link":
            foreign.symlink_to(target)
        case "directory":
            foreign.mkdir()
    before = foreign.lstat()
    for line in LINES[1:]:
        journal.seal_if_full()
        journal.append([line])
    assert foreign.lstat() == before
    assert target.read_bytes() == b"theirs\n"
    assert written(journal) == LINES
    assert journal.read(first) == LINES[0]
    assert caplog.text.count("cannot be sealed") == 1
    foreign.rename(tmp_path / "moved away")
    journal.seal_if_full()
    journal.append([b"next\n"])
    assert (tmp_path / "api_recovery.000001.jsonl").read_bytes() == b"".join(LINES)
    assert written(journal) == [*LINES, b"next\n"]


def test_a_kill_between_the_name_and_the_seal_changes_no_number(reopen: Open, tmp_path: Path) -> None:
    reopen(segment_bytes=1).append(LINES[:1])
    (tmp_path / "api_recovery.000001.jsonl").touch()
    journal = reopen(segment_bytes=1)
    assert journal.segments() == [1]
    assert written(journal) == LINES[:1]
    journal.seal_if_full()
    journal.append(LINES[1:2])
    assert written(journal) == written(reopen()) == LINES[:2]


def test_the_number_of_a_segment_that_is_gone_is_not_given_again(tmp_path: Path) -> None:
    """Put back later, it must not meet another of its name."""
    journal = Journal(tmp_path, segment_bytes=1, last_sealed=7)
    journal.append(LINES[:1])
    journal.seal_if_full()
    assert journal.active_segment == 9
    journal.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api_recovery.000008.jsonl", ACTIVE_NAME]
