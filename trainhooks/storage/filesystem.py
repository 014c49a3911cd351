"""What kind of file system a folder lies on: on a network or FUSE mount SQLite has no shared memory."""

import os
import re
import sys
from pathlib import Path

_NETWORK_TYPES = frozenset(
    {
        "9p", "afpfs", "afs", "beegfs", "ceph", "cifs", "fuse", "fuseblk", "gfs2", "glusterfs", "gpfs", "lustre",
        "macfuse", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "osxfuse", "panfs", "smb2", "smb3", "smbfs", "vboxsf",
        "virtiofs", "webdav", "wekafs",
    }
)  # fmt: skip
_OCTAL = re.compile(r"\\([0-7]{3})")  # how the table writes a space, a tab, a line break, a backslash
MOUNTS = Path("/proc/self/mounts")


def is_network(path: Path) -> bool:
    """Tell whether a folder lies on a network or FUSE file system (Colab's Drive is one)."""
    if sys.platform != "linux":  # macOS mounts what comes over the network below /Volumes or by the automounter
        return os.path.realpath(path).startswith(("/Volumes/", "/Network/", "/net/"))
    try:
        mounts = MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    kind = kind_of(path, mounts)
    return kind in _NETWORK_TYPES or kind.startswith("fuse.")


def kind_of(path: Path, mounts: str) -> str:
    """Return the file system type of a path (or where it will be), from the text of a mount table (fstab(5))."""
    place = os.path.realpath(path)
    kind, longest = "", -1
    for line in mounts.split("\n"):
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[1])
        is_inside = point == "/" or place == point or place.startswith(point + "/")
        if is_inside and len(point) >= longest:  # a later mount on the same point hides the earlier
            kind, longest = fields[2], len(point)
    return kind
