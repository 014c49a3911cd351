"""Detects network and FUSE file systems, where neither SQLite nor flock is reliable.

Both packages use it: standard library only.
"""

import os
import re
import sys
from pathlib import Path

NETWORK_TYPES = frozenset(
    {
        "9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "fuse", "fuseblk", "gfs2", "glusterfs", "gpfs", "lustre",
        "macfuse", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "osxfuse", "panfs", "smb2", "smb3", "smbfs", "vboxsf",
        "virtiofs", "webdav", "wekafs",
    }
)  # fmt: skip
"""Types whose locks or shared memory maps may be missing, delayed or local to one host."""

MOUNTS = Path("/proc/self/mounts")
_OCTAL = re.compile(r"\\([0-7]{3})")  # how the table writes a space, a tab, a line break, a backslash


def is_network(path: Path) -> bool:
    """Whether a path (or its nearest existing parent) lies on a network or FUSE file system, or may do so."""
    if sys.platform != "linux":
        # macOS has no mount table to read without its own tools; its own file systems are apfs and hfs, and a
        # network volume is mounted below /Volumes or by the automounter.
        return str(path.resolve()).startswith(("/Volumes/", "/Network/", "/net/"))
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:  # a chroot or sandbox without /proc: what is safe on a network is safe everywhere
        return True
    return is_network_type(type_of(path, mounts))


def is_network_type(type_name: str) -> bool:
    """Whether a file system type, as a mount table names it, is a network or FUSE one."""
    return type_name in NETWORK_TYPES or type_name.startswith("fuse.")


def type_of(path: Path, mounts: str) -> str:
    """Return the type of the mount that holds a path, from the text of a mount table (fstab(5) fields)."""
    resolved = os.path.realpath(path)
    best_length, best_type = -1, ""
    for line in mounts.split("\n"):
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[1])
        inside = point == "/" or resolved == point or resolved.startswith(point + "/")
        if inside and len(point) >= best_length:  # a later mount on the same point hides the earlier
            best_length, best_type = len(point), fields[2]
    return best_type
