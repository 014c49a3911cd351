"""Verify a checkpoint on disk against its manifest: every byte, nothing missing, nothing added."""

import errno
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from trainhooks.core import manifest as manifests
from trainhooks.core.manifest import MANIFEST, FileRecord, Manifest
from trainhooks.errors import CheckpointInvalid
from trainhooks.storage import durable_file

_HINT = "An earlier checkpoint is used instead; this one is kept under quarantine/."
_READERS = 4
"""SHA-256 does about 1 GB/s on one core; files are read side by side."""
_SMALL_BYTES = 1 << 20
_DAMAGE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO})
"""Errors that mean a damaged checkpoint. Others (no permission, no descriptors) do not."""
_SYSTEM_FILES = (".DS_Store", ".nfs")
"""Names that the macOS Finder and NFS create in directories."""


def read_manifest(path: Path) -> Manifest:
    """Read a checkpoint's manifest.

    Raises:
        CheckpointInvalid: missing, damaged, or of a newer version.
        OSError: no permission to read it.
    """
    try:
        text = (path / MANIFEST).read_bytes()
    except OSError as error:
        raise _damage(f"{path.name} has no readable manifest", error) from error
    return manifests.decode(text)


def verify(path: Path) -> Manifest:
    """Read every file of a checkpoint and compare it with the manifest.

    Raises:
        CheckpointInvalid: naming the first file that differs.
        OSError: no permission to read a file.
    """
    return _verify(path, _verify_file)


def verify_written(path: Path) -> Manifest:
    """Check that a draft just written is complete: each file has its size, and none is added.

    The bytes of large files were read back from the disk while they were written; small ones are read again.

    Raises:
        CheckpointInvalid: naming the first file that differs.
    """
    return _verify(path, _verify_size)


def _verify(path: Path, check: Callable[[Path, str, FileRecord], None]) -> Manifest:
    manifest = read_manifest(path)
    found = set(_files(path)) - {MANIFEST}
    differing = [f"lacks {name}" for name in sorted(manifest.files.keys() - found)]
    differing += [f"has {name}, which is not in its manifest" for name in sorted(found - manifest.files.keys())]
    if differing:
        raise CheckpointInvalid(f"{path.name} {', '.join(differing)}.", hint=_HINT)
    with ThreadPoolExecutor(_READERS, thread_name_prefix="trainhooks-verify") as readers:
        for checked in [readers.submit(check, path, name, record) for name, record in manifest.files.items()]:
            checked.result()
    return manifest


def _files(path: Path) -> Iterator[str]:
    """Yield the names of all files, relative; a link counts as a file, and is never part of a checkpoint."""
    for folder, folders, names in os.walk(path):
        links = [name for name in folders if (Path(folder) / name).is_symlink()]
        for name in [*names, *links]:
            if not name.startswith(_SYSTEM_FILES):
                file = Path(folder) / name
                yield file.relative_to(path).as_posix() + (" (a link)" if file.is_symlink() else "")


def _verify_file(path: Path, name: str, record: FileRecord) -> None:
    try:
        found = durable_file.digest(path / name)
    except OSError as error:
        raise _damage(f"{path.name}/{name} cannot be read", error) from error
    if found.size_bytes != record.size_bytes:
        raise CheckpointInvalid(
            f"{path.name}/{name} has {found.size_bytes} bytes instead of {record.size_bytes}.", hint=_HINT
        )
    if found.sha256 != record.sha256:
        raise CheckpointInvalid(f"{path.name}/{name} is damaged: its SHA-256 does not match.", hint=_HINT)


def _verify_size(path: Path, name: str, record: FileRecord) -> None:
    if record.size_bytes <= _SMALL_BYTES:
        _verify_file(path, name, record)
        return
    try:
        size = (path / name).stat().st_size
    except OSError as error:
        raise _damage(f"{path.name}/{name} cannot be read", error) from error
    if size != record.size_bytes:
        raise CheckpointInvalid(f"{path.name}/{name} has {size} bytes instead of {record.size_bytes}.", hint=_HINT)


def _damage(what: str, error: OSError) -> Exception:
    if error.errno not in _DAMAGE:
        return error
    return CheckpointInvalid(f"{what} ({error.strerror}).", hint=_HINT)
