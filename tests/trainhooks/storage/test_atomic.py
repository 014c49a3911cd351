"""Files on file systems that cannot sync a folder, or a file, each with an errno of its own."""

import errno
import os
import stat
from pathlib import Path

import pytest

from trainhooks.storage import atomic

CANNOT = [
    errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES, errno.EPERM, errno.EBADF, errno.ENOSYS, errno.EISDIR
]  # fmt: skip


@pytest.fixture(autouse=True)
def untold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_warned", set())


def refuse(monkeypatch: pytest.MonkeyPatch, number: int, *, folders: bool) -> None:
    fsync = os.fsync

    def refusing(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode) is folders:
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refusing)


@pytest.mark.parametrize("number", CANNOT, ids=errno.errorcode.__getitem__)
def test_a_folder_that_cannot_be_synced_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    refuse(monkeypatch, number, folders=True)
    for name in ("a", "b"):
        atomic.make_directory(tmp_path / name / "c")
        atomic.write(tmp_path / name / "c" / "file", b"text")
        assert (tmp_path / name / "c" / "file").read_bytes() == b"text"
    assert [each.levelname for each in caplog.records] == ["WARNING"]
    assert "cannot sync folders" in caplog.text


@pytest.mark.parametrize("number", CANNOT[:3], ids=errno.errorcode.__getitem__)
def test_a_file_that_cannot_be_synced_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    refuse(monkeypatch, number, folders=False)
    atomic.write(tmp_path / "file", b"text")
    atomic.write(tmp_path / "file", b"more")
    assert (tmp_path / "file").read_bytes() == b"more"
    assert caplog.text.count("cannot sync files") == 1


@pytest.mark.parametrize("folders", [True, False])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE])
def test_a_fault_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, folders: bool) -> None:
    refuse(monkeypatch, number, folders=folders)
    with pytest.raises(OSError) as raised:
        atomic.write(tmp_path / "file", b"text")
    assert raised.value.errno == number


def test_a_folder_that_cannot_be_opened_is_no_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows says EACCES where a folder is opened, and has no O_DIRECTORY."""
    opened = os.open

    def refuses(path: Path, flags: int, *more: int) -> int:
        if Path(path).is_dir():
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, *more)

    monkeypatch.setattr(os, "open", refuses)
    monkeypatch.delattr(os, "O_DIRECTORY")
    atomic.write(tmp_path / "file", b"text")


def test_all_bytes_are_with_the_system_when_they_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append(os.fstat(descriptor).st_size))
    atomic.write(tmp_path / "file", b"text")
    assert sizes[0] == 4
