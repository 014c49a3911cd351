"""Decides which directory may be a data directory: one that is new, empty or ours.

Nothing is created, changed or removed before that is decided, and a refusal names the files in the way. A directory is
ours if it has our `directory.json`. If that file is missing (a copied journal, a killed start, an earlier release), it
is ours if it holds only files with our names.
"""

import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import orjson

from kdproxy.errors import StorageFailed

MARKER_NAME = "directory.json"
IGNORE_NAME = ".gitignore"
_OURS = re.compile(
    r"(directory|segments|lanes)\.json(\.new)?|secret(\.new)?|lock|index"
    r"|(api_recovery|events)(\.\d{6,})?\.jsonl(\.next|\.scrubbed)?"  # .scrubbed: a `scrub` that was killed
)
_JOURNAL = re.compile(r"api_recovery(\.\d{6,})?\.jsonl")
_STRAYS = re.compile(
    # Files that systems and tools leave in a directory that its user considers empty.
    r"\.DS_Store|\._.*|\.localized|\.Trashes|\.Trash-\d+|\.fseventsd|\.Spotlight-V100|Thumbs\.db|desktop\.ini"
    r"|System Volume Information|\$RECYCLE\.BIN|lost\+found|\.snapshots?|\.zfs|\.nfs[0-9a-f]+|\.fuse_hidden[0-9a-f]+"
    r"|@eaDir|[@#]Recycle|#recycle|#snapshot|\.stfolder|\.dropbox"
    r"|\.gitkeep|\.keep|\.gitignore"
)
_MUST_BE_FILES = (MARKER_NAME, "lock", "secret", "segments.json", "lanes.json", "api_recovery.jsonl", "events.jsonl")
_NAMED = 3
"""Most names that a refusal lists."""


class Place(StrEnum):
    """What lies at the path of a data directory."""

    NEW = "new"
    EMPTY = "empty"
    OURS = "ours"


def examine(path: Path) -> Place:
    """Return what lies at a path. Changes nothing.

    Raises:
        StorageFailed: it must not be used; the message says why and what to do.
    """
    try:
        link = path.lstat()
    except FileNotFoundError:
        return Place.NEW
    except NotADirectoryError:
        above = next(parent for parent in path.parents if parent.exists())
        raise _refused(f"{above} is a file, so {path} cannot be a directory.", hint=_ANOTHER) from None
    if stat.S_ISLNK(link.st_mode) and not path.exists():
        raise _refused(
            f"The data directory {path} is a symbolic link to {path.readlink()}, which does not exist.",
            hint="Mount or create its target, or give another path with --data-dir.",
        )
    if not path.is_dir():
        raise _refused(f"{path} is not a directory.", hint=f"Move the file away. {_ANOTHER}")
    if has_marker(path):
        return Place.OURS
    names = sorted(entry.name for entry in path.iterdir())
    has_journal = any(map(_JOURNAL.fullmatch, names))
    has_index = "lock" in names and (path / "index" / "cache.db").is_file()
    foreign = [name for name in names if not _OURS.fullmatch(name) and not _STRAYS.fullmatch(name)]
    if "index" in names and not (has_journal or has_index):
        foreign.append("index")  # a common name, which alone proves nothing
    if foreign:
        raise _foreign(path, foreign, has_journal=has_journal)
    if has_journal or has_index:
        return Place.OURS
    if shared := _shared_place(path):
        raise _refused(
            f"{path} is {shared}, which kdproxy does not use as its data directory.",
            hint=f"Give a directory of kdproxy's own: --data-dir {path / 'kdproxy-data'}",
            code="data_dir_foreign",
        )
    return Place.EMPTY


def prepare(path: Path) -> None:
    """Create a new directory, or refuse one that this user must not write to.

    Raises:
        StorageFailed: it must not be used.
        OSError: it cannot be created or examined.
    """
    if examine_owned(path) is Place.NEW:
        path.mkdir(mode=0o700, parents=True)
        try:
            _ignore_all(path / IGNORE_NAME)
        except OSError:
            _unmake(path)  # on a full disk; the next start creates it again, with the file
            raise


def examine_owned(path: Path) -> Place:
    """Return what lies at a path, if this user may write to it. Changes nothing.

    Raises:
        StorageFailed: it must not be used, or another user owns it.
        OSError: it cannot be examined.
    """
    place = examine(path)
    if place is not Place.NEW:
        _refuse_other_owner(path, path.stat().st_uid)
        for name in _MUST_BE_FILES:
            _refuse_no_file(path / name)
    return place


def is_ours(name: str) -> bool:
    """Whether kdproxy makes files or directories of this name in a data directory."""
    return _OURS.fullmatch(name) is not None


def _ignore_all(path: Path) -> None:
    """Exclude answers from git, only in a directory that kdproxy created: in any other, that is the user's decision."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"*\n")


def _unmake(path: Path) -> None:
    with suppress(OSError):
        (path / IGNORE_NAME).unlink(missing_ok=True)
        path.rmdir()


def has_marker(path: Path) -> bool:
    """Whether a directory's `directory.json` is ours, in any format."""
    try:
        if not stat.S_ISREG((path / MARKER_NAME).lstat().st_mode):
            return False  # reading a pipe would block
        meta = orjson.loads((path / MARKER_NAME).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return False
    return isinstance(meta, dict) and isinstance(meta.get("format"), int) and isinstance(meta.get("upstreams"), dict)


def is_data_directory(path: Path) -> bool:
    """Whether a directory may hold answers: for reading, a journal alone is enough."""
    return has_marker(path) or any(map(_JOURNAL.fullmatch, _names(path)))


def is_open_to_others(path: Path) -> bool:
    """Whether other users can put files into a directory, by its mode."""
    return bool(path.stat().st_mode & 0o022)


def _names(path: Path) -> Iterable[str]:
    try:
        return [entry.name for entry in path.iterdir()]
    except OSError:
        return ()


def _shared_place(path: Path) -> str | None:
    """Describe an empty directory that many programs or users share; None for any other."""
    resolved = path.resolve()
    if resolved == resolved.parent:
        return "the root of the file system"
    try:
        if resolved == Path.home().resolve():
            return "your home directory"
    except RuntimeError:  # no HOME, and the user database does not know this user id
        pass
    return "a directory that all users share" if path.stat().st_mode & stat.S_ISVTX else None


def _refuse_no_file(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "not a regular file"
        raise _refused(
            f"{path} is {what}: kdproxy neither writes nor follows it.",
            hint="Put the file itself there. To store the data elsewhere, give that directory with --data-dir.",
        )
    _refuse_other_owner(path, found.st_uid)


def _refuse_other_owner(path: Path, owner: int) -> None:
    if not hasattr(os, "getuid") or owner == os.getuid():
        return
    name, mine = _user_name(owner), _user_name(os.getuid())
    whose = "data directory" if path.is_dir() else "file"
    raise _refused(
        f"The {whose} {path} belongs to another user ({name}); this process runs as {mine}.",
        hint=f"Run kdproxy as {name}, or give a directory of {mine}'s own with --data-dir: it holds prompts and "
        f"answers. If it is yours after all: sudo chown -R {mine} {path if path.is_dir() else path.parent}",
    )


def _user_name(user: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"


def _foreign(path: Path, names: list[str], *, has_journal: bool) -> StorageFailed:
    listed = ", ".join(names[:_NAMED])
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    hint = f"Give a directory that is new, empty or kdproxy's own, such as --data-dir {path / 'kdproxy-data'}"
    if has_journal:
        hint += (
            ". If it is a data directory that lost its directory.json, move the other files away; to use its answers "
            f"elsewhere: kdproxy warm {path / 'api_recovery.jsonl'}"
        )
    return _refused(
        f"{path} holds files that are not kdproxy's ({listed}{more}), so it is not used as the data directory. "
        "Nothing in it was changed.",
        hint=hint,
        code="data_dir_foreign",
    )


_ANOTHER = "Give another path with --data-dir."


def _refused(message: str, *, hint: str, code: str = "data_dir_unusable") -> StorageFailed:
    return StorageFailed(message, hint=hint, code=code)
