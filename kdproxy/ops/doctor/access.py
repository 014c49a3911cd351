"""Who owns the data directory and its files, and who else can read or write them."""

import os
import stat
from collections.abc import Iterable
from pathlib import Path

from kdproxy.filesystem import is_network_type
from kdproxy.ops.doctor.check import Check, Checks, note, ok, problem
from kdproxy.storage.layout import IGNORE_NAME, is_ours

_NO_MODES = frozenset({"drvfs", "exfat", "fuseblk", "msdos", "ntfs", "ntfs3", "vfat"})
"""File systems that show the same mode and owner for all files."""
_SHOWN = 3


def check_access(path: Path, *, type_name: str) -> Checks:
    """Check a data directory that exists."""
    if not os.access(path, os.R_OK | os.X_OK):
        yield problem(
            "permissions",
            f"This user cannot read {path}: no answer in it can be used.",
            f"Run kdproxy as its owner, or: chmod u+rwx {path}",
        )
        return
    if not os.access(path, os.W_OK):
        yield problem(
            "permissions",
            f"This user cannot write to {path}: nothing can be bought, because it could not be stored.",
            f"chmod u+w {path}, mount it writable, or give another --data-dir. To read a backup: `kdproxy stats`, "
            "`verify` and `export` work.",
        )
    files = list(_own_files(path))
    yield from _owners(files)
    if type_name in _NO_MODES or is_network_type(type_name):
        yield note(
            "permissions", f"The modes of files mean little on {type_name}: who can read {path} is set at its mount."
        )
        return
    found = [*_writable(path, files), *_readable(path, files)]
    yield from found or [ok("permissions", f"{path} is yours, and other users can neither read nor write it")]


def check_parent(path: Path) -> Checks:
    """Check that a data directory can be created."""
    parent = next(each for each in path.parents if each.exists())
    if os.access(parent, os.W_OK | os.X_OK):
        yield ok("permissions", f"{path} does not exist yet; `kdproxy serve` creates it")
    else:
        yield problem(
            "permissions",
            f"{path} does not exist, and this user cannot create it in {parent}.",
            "Give another --data-dir, or create it for this user (sudo install -d -m 700 -o USER DIR).",
        )


def check_token_file(path: Path) -> Checks:
    """Check that only its owner can read the proxy's token."""
    if path.stat().st_mode & stat.S_IROTH and _is_reachable(path.parent):
        yield problem(
            "permissions",
            f"All users of this machine can read the proxy's token in {path}: they can spend your credentials.",
            f"chmod 600 {path}, and take a new token.",
        )
    else:
        yield ok("permissions", f"the token in {path} is not open to all users")


def _own_files(path: Path) -> Iterable[tuple[Path, os.stat_result]]:
    for folder in (path, path / "index"):
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            continue
        for entry in entries:
            if folder == path and not is_ours(entry.name) and entry.name != IGNORE_NAME:
                continue
            try:
                yield entry, entry.lstat()
            except OSError:
                continue  # a running proxy has replaced it


def _owners(files: Iterable[tuple[Path, os.stat_result]]) -> Checks:
    foreign = [path for path, found in files if found.st_uid != os.getuid()]
    if foreign:
        yield problem(
            "owner",
            f"Other users own files of the data directory ({_listed(foreign)}), perhaps because kdproxy ran under "
            "sudo once: the proxy may be unable to store what is bought.",
            f"sudo chown -R {os.getuid()} {foreign[0].parent}",
        )


def _writable(path: Path, files: Iterable[tuple[Path, os.stat_result]]) -> Iterable[Check]:
    places = [(path, path.stat()), *files]
    by_all = [each for each, found in places if found.st_mode & stat.S_IWOTH and not stat.S_ISLNK(found.st_mode)]
    if by_all and _is_reachable(path):
        yield problem(
            "permissions",
            f"All users of this machine can write to {_listed(by_all)}: they can delete or forge what was paid for.",
            f"chmod -R go-w {path}",
        )
    shared = [
        each
        for each, found in places
        if found.st_mode & stat.S_IWGRP and not stat.S_ISLNK(found.st_mode) and not _is_private(found)
    ]
    if shared and not by_all:
        yield note(
            "permissions",
            f"The members of a group can write to {_listed(shared)}.",
            f"If that is not wanted: chmod -R g-w {path}",
        )


def _readable(path: Path, files: Iterable[tuple[Path, os.stat_result]]) -> Iterable[Check]:
    if not _is_reachable(path):
        return
    open_files = [
        each for each, found in files if stat.S_ISREG(found.st_mode) and found.st_mode & stat.S_IROTH
        and each.name != IGNORE_NAME
    ]  # fmt: skip
    if open_files:
        yield problem(
            "permissions",
            f"All users of this machine can read {_listed(open_files)}: prompts and answers are in the directory, and "
            "the lock file has the token of the proxy's own API.",
            f"chmod -R go-rwx {path}",
        )


def _is_reachable(path: Path) -> bool:
    """Whether any user can reach what lies in a directory, by the modes of all directories above."""
    resolved = path.resolve()
    return all(each.stat().st_mode & stat.S_IXOTH for each in (resolved, *resolved.parents))


def _is_private(found: os.stat_result) -> bool:
    """Whether a group has one member, as where each user has a group of the same name (umask 002)."""
    import grp
    import pwd

    try:
        user, group = pwd.getpwuid(found.st_uid), grp.getgrgid(found.st_gid)
    except KeyError:
        return found.st_gid == os.getgid()
    return user.pw_gid == group.gr_gid and set(group.gr_mem) <= {user.pw_name} and group.gr_name == user.pw_name


def _listed(paths: list[Path]) -> str:
    more = f" and {len(paths) - _SHOWN} more" if len(paths) > _SHOWN else ""
    return ", ".join(map(str, paths[:_SHOWN])) + more
