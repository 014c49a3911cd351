"""Which mount holds a path, from planted mount tables."""

from pathlib import Path

import pytest

from kdproxy import filesystem
from kdproxy.filesystem import is_network, is_network_type, type_of

MOUNTS = r"""
/dev/root / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
server:/export /mnt/nfs nfs4 rw,vers=4.2 0 0
/dev/sdb1 /mnt/nfs/local xfs rw 0 0
user@host: /home/me/remote fuse.sshfs rw 0 0
//server/share /mnt/with\040space cifs rw 0 0
server:/b /mnt/back\134slash nfs rw 0 0
server:/g /mnt/größe nfs rw 0 0
/dev/sdc1 /data ext4 rw 0 0
server:/over /data lustre rw 0 0
tmpfs /run tmpfs rw 0 0
broken
"""


@pytest.mark.parametrize(
    ("path", "type_name"),
    [
        ("/", "ext4"),
        ("/home/me", "ext4"),
        ("/home/me/remote", "fuse.sshfs"),
        ("/home/me/remote/a/b", "fuse.sshfs"),
        ("/home/me/remotely", "ext4"),
        ("/mnt/nfs", "nfs4"),
        ("/mnt/nfs/a", "nfs4"),
        ("/mnt/nfs/local/a", "xfs"),
        ("/mnt/with space/kdproxy-data", "cifs"),
        ("/mnt/back\\slash/x", "nfs"),
        ("/mnt/größe/x", "nfs"),
        ("/data/kdproxy-data", "lustre"),
        ("/run/x", "tmpfs"),
    ],
)
def test_the_deepest_and_latest_mount_holds_a_path(path: str, type_name: str) -> None:
    assert type_of(Path(path), MOUNTS) == type_name


def test_a_mount_point_of_undecodable_bytes_is_no_crash() -> None:
    mounts = MOUNTS + "server:/x /mnt/\udcff nfs rw 0 0\n"
    assert type_of(Path("/mnt/\udcff/x"), mounts) == "nfs"
    assert type_of(Path("/home"), mounts) == "ext4"


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "far")
    mounts = f"/dev/root / ext4 rw 0 0\nserver:/x {(tmp_path / 'far').resolve()} nfs rw 0 0\n"
    assert type_of(tmp_path / "link" / "data", mounts) == "nfs"


@pytest.mark.parametrize(
    "name", ["nfs", "nfs4", "cifs", "smb3", "lustre", "fuse", "fuse.sshfs", "fuse.gcsfuse", "9p", "virtiofs"]
)
def test_network_types(name: str) -> None:
    assert is_network_type(name)


@pytest.mark.parametrize("name", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs", "f2fs", "fusectl", ""])
def test_local_types(name: str) -> None:
    assert not is_network_type(name)


def test_this_machine_s_table_is_readable(tmp_path: Path) -> None:
    assert is_network(tmp_path / "not" / "there") in (True, False)


@pytest.mark.parametrize(
    ("type_name", "expected"), [("ext4", False), ("overlay", False), ("nfs4", True), ("fuse.drive", True)]
)
def test_the_mount_table_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, type_name: str, expected: bool
) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"root / ext4 rw 0 0\nx {tmp_path} {type_name} rw 0 0\n")
    monkeypatch.setattr(filesystem, "MOUNTS", mounts)
    assert is_network(tmp_path / "not yet" / "there") is expected
    assert is_network(tmp_path.parent) is False


def test_without_a_mount_table_the_safe_answer_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filesystem, "MOUNTS", tmp_path / "nowhere")
    assert is_network(tmp_path) is True
