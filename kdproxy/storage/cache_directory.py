"""Where the index of a data directory on a network file system lies: a private directory on this machine's own disk.

Other users can write to some of the places above it (`/tmp`), so it is made with mode 0700 or, where it is there
already, looked at without following links: a directory of this user that others cannot write to, in one where they
cannot rename it. Where that does not hold, nothing in it is read or written.
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
    """Another user has, or may have, prepared a directory; the text says which and why."""


def find_private(data_directory: Path, *, makes: bool = True) -> tuple[Path | None, list[str]]:
    """Return the directory for the index of a data directory, and what was passed over and why.

    None where no place will do: the index is then kept in memory, and made anew at each start.

    Args:
        makes: make what is not there yet; else the first place that is there already is returned.
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
    """Make a directory of mode 0700, or accept one in which only this user can have put anything. Return it.

    Raises:
        NotPrivate: it is a link or a file, another user's, or others can write to it.
    """
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no directory"
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
    with contextlib.suppress(RuntimeError):  # no HOME, and nobody has this user id
        yield Path.home() / ".cache"
    with contextlib.suppress(FileNotFoundError):  # no place can be written to
        yield Path(tempfile.gettempdir())


def _refuse_open_parent(base: Path) -> None:
    """A directory that others can write to is safe to keep ours in only where they cannot rename what is not theirs."""
    found = base.stat()
    if found.st_uid not in (0, os.getuid()):
        raise NotPrivate(f"{base} belongs to another user")
    if found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX:
        raise NotPrivate(f"other users can rename what lies in {base} (mode {stat.S_IMODE(found.st_mode):04o})")
