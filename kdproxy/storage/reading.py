"""A data directory that cannot be written: read where it lies, beside a copy of its index that is thrown away."""

import shutil
import tempfile
from pathlib import Path

from kdproxy.errors import StorageFailed
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.directory import INDEX_NAME, check_format
from kdproxy.storage.disk import DiskStore
from kdproxy.storage.journal import Journal
from kdproxy.storage.lock import refuse_owned


class ReadOnlyDirectory:
    """Made by `open`; `close` removes the copy."""

    def __init__(self, archive: FileArchive, scratch: "tempfile.TemporaryDirectory[str]") -> None:
        self.archive = archive
        self._scratch = scratch

    @classmethod
    def open(cls, path: Path) -> "ReadOnlyDirectory":
        """Open a directory without writing to it. What is called to write fails.

        Raises:
            DirectoryBusy: a process owns it, which may write.
            StorageFailed: it cannot be read, or has a newer format.
        """
        path = path.expanduser().absolute()
        try:
            check_format(path)
            refuse_owned(path)
            scratch = tempfile.TemporaryDirectory(prefix="kdproxy-")
            try:
                index = Path(scratch.name) / INDEX_NAME
                # A database with a write-ahead log cannot be opened where nothing can be written. What the copy lacks,
                # or all of it where there is none, is read from the journal.
                if (path / INDEX_NAME).is_dir():
                    shutil.copytree(path / INDEX_NAME, index, copy_function=shutil.copyfile)
                archive = FileArchive(
                    Journal(path, segment_bytes=1 << 62, is_read_only=True), lambda: DiskStore(index), memory_bytes=0
                )
            except BaseException:
                scratch.cleanup()
                raise
        except OSError as error:
            raise StorageFailed(
                f"The data directory {path} cannot be read ({error.strerror or 'its index cannot be copied'}).",
                hint="Check its permissions, and that the temporary directory has room for a copy of its index.",
                code="data_dir_unusable",
            ) from error
        return cls(archive, scratch)

    def close(self) -> None:
        """Close the files and remove the copy."""
        self.archive.close()
        self._scratch.cleanup()
