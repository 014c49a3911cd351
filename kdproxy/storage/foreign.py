"""Finds files in a data directory that other programs left in place of the journal's, or beside them.

A file that is no journal must not be extended: what was appended would be lost once the right file is put back.
"""

import logging
import re
from pathlib import Path

from kdproxy.errors import StorageFailed
from kdproxy.storage.log_files import JOURNAL_FILES

log = logging.getLogger("kdproxy.storage")

_READ_BYTES = 1 << 20
_CHECKSUM = b'"sha256":"'
_POINTER = b"version https://git-lfs"
_COPY = re.compile(
    # conflict copies of Syncthing, Dropbox and Nextcloud; compressed and rotated segments
    r"api_recovery.*(conflict.*|\.(gz|bz2|xz|zst)|\.jsonl[.-]\d[\d.-]*)",
    re.IGNORECASE,
)


def refuse_foreign(directory: Path) -> None:
    """Refuse a directory in which a file of the journal holds something else. Reads the first line, as a rule.

    Raises:
        StorageFailed: `journal_foreign`.
    """
    for path in sorted(directory.iterdir()):
        is_ours = path.name == JOURNAL_FILES.active or JOURNAL_FILES.sealed.fullmatch(path.name)
        if not is_ours or not path.is_file() or _is_journal(path):
            continue
        with path.open("rb") as file:
            is_pointer = file.read(len(_POINTER)) == _POINTER
        what = "is a Git LFS pointer, not the file itself" if is_pointer else "does not hold kdproxy's lines"
        how = "`git lfs pull` fetches the file" if is_pointer else "put the journal's file back from a copy"
        raise StorageFailed(
            f"{path} {what}. Nothing was changed: its answers would be bought again, and new ones would be lost with "
            "this file.",
            hint=f"If answers were in it, {how}; else move it out of the directory.",
            code="journal_foreign",
        )


def _is_journal(path: Path) -> bool:
    """Whether a file has a line of ours, begins like one, or holds nothing (NULs that a power cut left)."""
    with path.open("rb") as file:
        chunk = before = file.read(_READ_BYTES)
        start = chunk.lstrip(b"\0")
        if start[:1] in (b"", b"{"):
            return True
        while _CHECKSUM not in chunk:
            following = file.read(_READ_BYTES)
            if not following:
                return False
            chunk, before = before[-len(_CHECKSUM) :] + following, following
    return True


def report_copies(directory: Path) -> None:
    """Log the files that look like copies of the journal which other programs made: they are not read."""
    if found := copies_beside(directory):
        log.warning(
            "files beside the journal are not read: conflict copies, or segments that were compressed or rotated. "
            "`kdproxy warm FILE` takes over answers that only they hold",
            extra={"files": ", ".join(found)},
        )


def copies_beside(directory: Path) -> list[str]:
    """Return the names of files that look like copies of the journal which other programs made."""
    return sorted(path.name for path in directory.iterdir() if _COPY.fullmatch(path.name))
