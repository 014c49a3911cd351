"""A journal that somebody else has taken is not written, and nothing of theirs is cut."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kdproxy.errors import StorageFailed
from kdproxy.storage.journal import Journal
from kdproxy.storage.log_files import ACTIVE_NAME

FOREIGN = b'{"line":"of another process"}\n'


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path, segment_bytes=1 << 30)
    yield journal
    journal.close()


def test_a_journal_that_grew_behind_our_back_is_left_alone(journal: Journal, tmp_path: Path) -> None:
    journal.append([b"ours\n"])
    with (tmp_path / ACTIVE_NAME).open("ab") as file:
        file.write(FOREIGN)
    with pytest.raises(StorageFailed, match="Another process"):
        journal.append([b"late\n"])
    assert (tmp_path / ACTIVE_NAME).read_bytes() == b"ours\n" + FOREIGN


def test_nothing_is_written_once_the_lock_is_lost(tmp_path: Path) -> None:
    held = True
    journal = Journal(tmp_path, segment_bytes=1 << 30, is_ours=lambda: held)
    journal.append([b"ours\n"])
    held = False
    with pytest.raises(StorageFailed, match="Another process"):
        journal.append([b"late\n"])
    journal.close()
    assert (tmp_path / ACTIVE_NAME).read_bytes() == b"ours\n"


def test_nothing_is_sealed_once_the_lock_is_lost(tmp_path: Path) -> None:
    """The active file is the follower's by then."""
    held = True
    journal = Journal(tmp_path, segment_bytes=1, is_ours=lambda: held)
    journal.append([b"ours\n"])
    held = False
    with pytest.raises(StorageFailed, match="Another process"):
        journal.seal_if_full()
    journal.close()
    assert [path.name for path in tmp_path.iterdir()] == [ACTIVE_NAME]


def test_a_file_that_was_put_in_our_place_is_not_sealed(tmp_path: Path) -> None:
    journal = Journal(tmp_path, segment_bytes=1)
    journal.append([b"ours\n"])
    (tmp_path / ACTIVE_NAME).rename(tmp_path / "kept")
    (tmp_path / ACTIVE_NAME).write_bytes(FOREIGN)
    with pytest.raises(StorageFailed, match="moved, replaced or deleted"):
        journal.seal_if_full()
    (tmp_path / "kept").rename(tmp_path / ACTIVE_NAME)
    journal.seal_if_full()
    journal.close()
    assert (tmp_path / "api_recovery.000001.jsonl").read_bytes() == b"ours\n"


def test_our_own_remains_are_cut_by_the_next_append(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal.append([b"first\n"])
    sync = "fdatasync" if hasattr(os, "fdatasync") else "fsync"

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, sync, refuse)
        patch.setattr(os, "ftruncate", refuse)
        with pytest.raises(StorageFailed):
            journal.append([b"second\n"])
    assert (tmp_path / ACTIVE_NAME).read_bytes() == b"first\nsecond\n"
    journal.append([b"third\n"])
    assert (tmp_path / ACTIVE_NAME).read_bytes() == b"first\nthird\n"


@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_a_file_that_is_no_longer_there_is_not_written(journal: Journal, tmp_path: Path, how: str) -> None:
    """What went into the old file would be gone with the process."""
    journal.append([b"ours\n"])
    path = tmp_path / ACTIVE_NAME
    kept = tmp_path / "kept"
    path.rename(kept)
    if how == "replaced":
        path.write_bytes(b"ours\n")
    with pytest.raises(StorageFailed, match="moved, replaced or deleted"):
        journal.append([b"late\n"])
    kept.rename(path)
    journal.append([b"back\n"])
    assert path.read_bytes() == b"ours\nback\n"
