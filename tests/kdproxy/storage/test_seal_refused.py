"""A seal whose last step the disk refuses: lines are written on, and the next call finishes it."""

import errno
from pathlib import Path

import pytest

from kdproxy.storage import journal as under_test
from kdproxy.storage.journal import Journal

LINES = [b"one\n", b"two\n", b"three\n"]


def test_a_seal_that_failed_half_way_refuses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path, segment_bytes=1)
    journal.append(LINES[:1])

    def fail(directory: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as failing:
        failing.setattr(under_test, "sync_directory", fail)
        with pytest.raises(OSError, match="Input"):
            journal.seal_if_full()
    journal.check_place()
    journal.write(LINES[1])
    journal.seal_if_full()
    journal.write(LINES[2])
    assert [line.raw for line in journal.lines()] == LINES
    journal.close()
