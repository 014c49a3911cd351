"""Opens a data directory for reading only: no byte, mode or time in it changes, even if it is writable.

The index is copied, brought up to date with the journal (or rebuilt if it is damaged) and removed at the end. If the
temporary directory has no room, the copy is made in memory.
"""

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from kdproxy.core.ports import Store
from kdproxy.errors import IndexDamaged, StorageFailed
from kdproxy.filesystem import is_network
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.cache_directory import find_private
from kdproxy.storage.consistency import judge, log_changes
from kdproxy.storage.directory import INDEX_NAME, check_format
from kdproxy.storage.disk import DATABASE_FILES, DiskStore, discard
from kdproxy.storage.foreign import refuse_foreign
from kdproxy.storage.journal import Journal
from kdproxy.storage.lock import refuse_owned
from kdproxy.storage.manifest import Manifest
from kdproxy.storage.memory import MemoryStore

log = logging.getLogger("kdproxy.storage")


class ReadOnlyDirectory:
    """Created by `open`; `close` removes the copy of the index."""

    def __init__(
        self,
        archive: FileArchive,
        manifest: Manifest,
        scratch: ExitStack,
        index_trouble: str | None,
    ) -> None:
        self.archive = archive
        self.manifest = manifest
        self.index_trouble = index_trouble
        """What is wrong with the index on disk, in one sentence; reads here are correct anyway."""
        self._scratch = scratch

    @classmethod
    def open(cls, path: Path) -> "ReadOnlyDirectory":
        """Open a directory without writing to it. Methods that write fail.

        Raises:
            DirectoryBusy: a process owns it and may write.
            StorageFailed: it cannot be read, has a newer format, or its journal is gone.
        """
        path = path.expanduser().absolute()
        try:
            check_format(path)
            refuse_foreign(path)
            on_network = is_network(path)
            refuse_owned(path, is_network=on_network)
            with ExitStack() as made:
                manifest = Manifest.load(path)
                manifest.rescan(trusts_inodes=not on_network)
                copy = made.enter_context(_scratch()) / INDEX_NAME
                copy_index(find_private(path, makes=False)[0] if on_network else path / INDEX_NAME, copy)
                trouble = judge(path, copy, manifest).misfit
                if trouble is not None:
                    discard(copy)
                    log.warning(
                        "the index cannot be used; a temporary one is made for this command; serve, warm and forget "
                        "rebuild it",
                        extra={"reason": trouble},
                    )
                log_changes(manifest)
                archive = _open_archive(path, copy)
                scratch = made.pop_all()
        except OSError as error:
            raise StorageFailed(
                f"The data directory {path} cannot be read ({error.strerror}).",
                hint="Check its permissions, and those of the temporary directory (TMPDIR).",
                code="data_dir_unusable",
            ) from error
        return cls(archive, manifest, scratch, trouble)

    def close(self) -> None:
        """Close the files and remove the copy."""
        self.archive.close()
        self._scratch.close()


@contextmanager
def _scratch() -> Iterator[Path]:
    """Yield a temporary directory; an unusable path if there is no room for one."""
    try:
        scratch = tempfile.TemporaryDirectory(prefix="kdproxy-")
    except OSError:
        yield Path(os.devnull)
        return
    with scratch as name:
        yield Path(name)


def copy_index(source: Path | None, copy: Path) -> None:
    """Copy the index, if any: a database with a write-ahead log cannot be opened without writing beside it."""
    for name in DATABASE_FILES[:2]:  # SQLite makes the third from the second
        try:
            copy.mkdir(mode=0o700, exist_ok=True)
            if source is not None and (source / name).is_file():
                shutil.copyfile(source / name, copy / name)
        except OSError as error:
            # Unreadable, or no room: what the copy lacks is read from the journal.
            log.warning("the index cannot be copied and is rebuilt for this command", extra={"error": error.strerror})
            with suppress(OSError):
                discard(copy)
            return


def _open_archive(path: Path, copy: Path) -> FileArchive:
    def with_store(make_store: Callable[[], Store]) -> FileArchive:
        journal = Journal(path, segment_bytes=1 << 62, is_read_only=True)
        return FileArchive(journal, make_store, memory_bytes=0)

    try:
        return with_store(lambda: DiskStore(copy))
    except IndexDamaged:
        discard(copy)
        return with_store(lambda: DiskStore(copy))
    except (StorageFailed, OSError) as error:
        log.warning("the temporary index is made in memory", extra={"reason": str(error)})
        return with_store(MemoryStore)
