"""Network and FUSE mounts are told from local ones by the mount table."""

from pathlib import Path

import pytest

from trainhooks.storage import filesystem


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("ext4", False),
        ("tmpfs", False),
        ("overlay", False),
        ("xfs", False),
        ("nfs4", True),
        ("cifs", True),
        ("lustre", True),
        ("9p", True),
        ("virtiofs", True),
        ("fuse", True),
        ("fuse.sshfs", True),
        ("fuse.drive", True),
    ],
)
def test_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, expected: bool) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"root / ext4 rw 0 0\nx {tmp_path} {kind} rw 0 0\n")
    monkeypatch.setattr(filesystem, "MOUNTS", mounts)
    assert filesystem.is_network(tmp_path / "not yet" / "there") is expected
    assert filesystem.is_network(tmp_path.parent) is False


def test_the_nearest_and_the_last_mount_counts() -> None:
    mounts = "a / ext4\nb /mnt nfs4\nc /mnt/my\\040drive fuse.drive\nd /mnt/local ext4\ne /mnt/local cifs\nbroken\n"
    for path, kind in (
        ("/home/x", "ext4"),
        ("/mnt/x", "nfs4"),
        ("/mntx", "ext4"),
        ("/mnt/my drive/run", "fuse.drive"),
        ("/mnt/local/run", "cifs"),
    ):
        assert filesystem.kind_of(Path(path), mounts) == kind


def test_without_a_mount_table_it_is_local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "MOUNTS", tmp_path / "nowhere")
    assert filesystem.is_network(tmp_path) is False
