"""Finds the index's place when the data directory is on a network: a private directory on a local disk.

Other users can write to some of its parents (`/tmp`). So it is created with mode 0700. An existing one is checked
without following links: it must belong to this user, others must not be able to write to it, and they must not be able
to rename it. If a check fails, nothing in it is read or written.
"""

import contextlib
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from kdproxy.filesystem import is_network


class NotPrivate(Exception):
    """Another user may have prepared the directory; the text says which one and why."""


def find_private(data_directory: Path, *, makes: bool = True) -> tuple[Path | None, list[str]]:
    """Return the directory for a data directory's index, and the rejected places with the reasons.

    None if no place is safe: the index is then kept in memory and rebuilt at each start.

    Args:
        makes: create missing directories; otherwise return the first place that exists.
    """
    reasons: list[str] = []
    name = hashlib.sha256(os.fsencode(data_directory)).hexdigest()[:16]
    for base in _bases():
        try:
            if is_network(base):
                continue
            if makes:
                base.mkdir(mode=0o700, parents=True, exist_ok=True)
            elif not (base / f"kdproxy-{os.getuid()}" / name).exists():
                continue
            _refuse_open_parent(base.resolve())
            return make_private(make_private(base.resolve() / f"kdproxy-{os.getuid()}") / name), reasons
        except NotPrivate as error:
            reasons.append(str(error))
        except OSError as error:
            reasons.append(f"{base}: {error.strerror}")
    return None, reasons


def make_private(path: Path) -> Path:
    """Create a directory of mode 0700, or accept one that only this user can have written to. Return it.

    Raises:
        NotPrivate: it is a link or a file, it belongs to another user, or others can write to it.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a directory"
            raise NotPrivate(f"{path} is {what}") from None
        if found.st_uid != os.getuid():
            raise NotPrivate(f"{path} belongs to another user") from None
        if found.st_mode & 0o022:  # earlier releases made the upper one with mode 0755
            raise NotPrivate(f"other users can write to {path} (mode {stat.S_IMODE(found.st_mode):04o})") from None
    return path


def _bases() -> Iterator[Path]:
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if given.is_absolute():  # the XDG base directory specification: a relative path is ignored
        yield given
    with contextlib.suppress(RuntimeError):  # no HOME, and the user database does not know this user id
        yield Path.home() / ".cache"
    with contextlib.suppress(FileNotFoundError):  # no temporary directory is writable
        yield Path(tempfile.gettempdir())


def _refuse_open_parent(base: Path) -> None:
    """Where others can write to the parent, it is safe only if they cannot rename our directory (sticky bit)."""
    found = base.stat()
    if found.st_uid not in (0, os.getuid()):
        raise NotPrivate(f"{base} belongs to another user")
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise NotPrivate(f"other users can rename directories in {base} (mode {stat.S_IMODE(found.st_mode):04o})")
