"""The data directory: its description, its lock, and the archive inside it.

.gitignore                     `*`, if kdproxy created the directory
directory.json                 format version, upstream NAME -> URL
lock                           which process owns the directory
api_recovery.jsonl             the journal's active file
api_recovery.NNNNNN.jsonl      sealed segments
index/                         the diskcache index (derived; elsewhere on a network file system)
"""

import errno
import logging
import os
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from kdproxy.core.ports import Store
from kdproxy.errors import DirectoryReadOnly, IndexDamaged, StorageFailed
from kdproxy.filesystem import is_network
from kdproxy.storage.archive import FileArchive
from kdproxy.storage.cache_directory import find_private
from kdproxy.storage.consistency import SEGMENTS, Verdict, judge, log_changes, log_loss
from kdproxy.storage.disk import DiskStore, discard
from kdproxy.storage.durable import sync_directory
from kdproxy.storage.foreign import refuse_foreign, report_copies
from kdproxy.storage.journal import Journal
from kdproxy.storage.layout import MARKER_NAME, is_open_to_others, prepare
from kdproxy.storage.lock import DirectoryLock, Owner
from kdproxy.storage.manifest import Changes, Manifest
from kdproxy.storage.memory import MemoryStore

log = logging.getLogger("kdproxy.storage")

FORMAT_VERSION = 2
"""The format that is written. A directory of format 1 becomes format 2 with its first line of record version 2."""
_META_LOCK = threading.Lock()
"""The main thread and the writer both write `directory.json`."""
INDEX_NAME = "index"
DEFAULT_SEGMENT_BYTES = 256 << 20
DEFAULT_MEMORY_BYTES = 16 << 20


class DataDirectory:
    """An owned data directory with its archive open. Created by `open`; `close` releases it."""

    index_trouble: str | None = None
    """Always None here: opening rebuilds an index that cannot be used."""

    def __init__(
        self, path: Path, lock: DirectoryLock, archive: FileArchive, index_path: Path | None, manifest: Manifest
    ) -> None:
        self.path = path
        self.archive = archive
        self.index_path = index_path
        self.manifest = manifest
        self._lock = lock

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        command: str,
        segment_bytes: int = DEFAULT_SEGMENT_BYTES,
        memory_bytes: int = DEFAULT_MEMORY_BYTES,
        accepts_loss: bool = False,
    ) -> "DataDirectory":
        """Create or open a data directory and take its lock. An index that is damaged or does not match is rebuilt.

        Args:
            accepts_loss: accept the journal as it is, even where index and manifest know of lost lines.

        Raises:
            DirectoryBusy: another process owns it.
            StorageFailed: it is not a data directory, cannot be created, written or read, has a newer format, or
                its journal is gone.
        """
        path = path.expanduser().absolute()
        try:
            prepare(path)
            on_network = is_network(path)
            lock = DirectoryLock(path, is_network=on_network, command=command)
            lock.acquire()
            try:
                check_format(path)
                refuse_foreign(path)
                if not _read_meta(path):
                    _write_meta(path, {"format": FORMAT_VERSION, "upstreams": {}})
                index_path = index_path_of(path, on_network=on_network)
                manifest = Manifest.load(path)
                is_other = manifest.rescan(trusts_inodes=not on_network)
                if accepts_loss:
                    manifest.forget_missing()
                    verdict = Verdict(known=None, misfit="What the journal lost was accepted.")
                else:
                    verdict = judge(path, index_path, manifest)
                if index_path is not None and verdict.misfit is not None:
                    log.warning("the index is rebuilt from the journal", extra={"reason": verdict.misfit})
                    discard(index_path)
                archive = _open_archive(
                    path, index_path, manifest, lock, segment_bytes=segment_bytes, memory_bytes=memory_bytes
                )
            except BaseException:
                lock.release()
                raise
        except OSError as error:
            is_read_only = error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)
            raise (DirectoryReadOnly if is_read_only else StorageFailed)(
                f"The data directory {path} cannot be used ({error.strerror}).",
                hint="Check that it exists or can be created, that you own it, and that the disk is not full, "
                "or give another one with --data-dir.",
                code="data_dir_unusable",
            ) from error
        opened = cls(path, lock, archive, index_path, manifest)
        opened._settle(verdict, is_other_manifest=is_other or accepts_loss)
        return opened

    def _settle(self, verdict: Verdict, *, is_other_manifest: bool) -> None:
        """Log what was found at the start, and record which segments the index has read."""
        if is_open_to_others(self.path):
            log.warning(
                "other users can put files into the data directory: chmod go-w closes it",
                extra={"path": str(self.path)},
            )
        log_changes(self.manifest)
        report_copies(self.path)
        if verdict.known is not None and (verdict.misfit is not None or self.archive.report.is_rebuilt):
            log_loss(verdict.known, self.archive.counters.total)
        self.manifest.changes = Changes()  # they have been logged
        # The index first: if this start is killed, the next one must see the same reason to rebuild it.
        _note_segments(self.archive, self.manifest)
        if is_other_manifest:
            self.manifest.write()

    @property
    def owner(self) -> Owner:
        """This process, as the lock file names it."""
        return self._lock.owner

    def announce(self, address: str) -> None:
        """Write the address of the owner's API into the lock file."""
        self._lock.announce(address)

    def upstream_urls(self) -> dict[str, str]:
        """Return the recorded upstreams, name to URL."""
        return known_upstreams(self.path)

    def remember_upstreams(self, urls: Mapping[str, str]) -> None:
        """Record upstreams beside those already known. If the write fails, the next start repeats it."""
        known = self.upstream_urls()
        if all(known.get(name) == url for name, url in urls.items()):
            return
        try:
            with _META_LOCK:
                _write_meta(self.path, {**_read_meta(self.path), "upstreams": {**known, **urls}})
        except OSError as error:
            log.warning("the upstreams' URLs could not be written to directory.json", extra={"error": error.strerror})

    def close(self) -> None:
        """Write what is queued, close the files, release the lock."""
        self.archive.close()
        self._lock.release()


def _open_archive(
    path: Path,
    index_path: Path | None,
    manifest: Manifest,
    lock: DirectoryLock,
    *,
    segment_bytes: int,
    memory_bytes: int,
) -> FileArchive:
    """Open journal and index. A damaged index is rebuilt; one that cannot be opened is kept in memory."""

    def note_seal(name: str) -> None:
        manifest.add(name)
        _note_segments(archive, manifest)

    def with_store(make_store: Callable[[], Store]) -> FileArchive:
        journal = Journal(
            path,
            segment_bytes=segment_bytes,
            is_ours=lambda: not lock.is_lost,
            last_sealed=manifest.last_number,
            on_seal=note_seal,
        )
        return FileArchive(journal, make_store, memory_bytes=memory_bytes, before_first=partial(_raise_format, path))

    if index_path is None:
        archive = with_store(MemoryStore)
        return archive
    try:
        archive = with_store(lambda: DiskStore(index_path))
    except IndexDamaged:
        discard(index_path)
        archive = with_store(lambda: DiskStore(index_path))
    except StorageFailed as error:
        log.warning(
            "the index cannot be opened and is kept in memory until the next start; answers are stored and found",
            extra={"reason": error.message},
        )
        archive = with_store(MemoryStore)
    return archive


def _note_segments(archive: FileArchive, manifest: Manifest) -> None:
    """Record in the index which segments it was made from."""
    archive.note(SEGMENTS, orjson.dumps(manifest.checksums, option=orjson.OPT_SORT_KEYS))


def index_path_of(path: Path, *, on_network: bool) -> Path | None:
    """Return the path of the index; None: in memory."""
    if not on_network:
        return path / INDEX_NAME
    private, passed_over = find_private(path)
    if private is None:
        log.warning(
            "no directory on a local disk is safe for the index: it is kept in memory and rebuilt at each start, "
            "which costs time and memory, not money; set XDG_CACHE_HOME to a private directory",
            extra={"passed_over": "; ".join(passed_over)},
        )
    elif passed_over:
        log.warning(
            "directories that other users may have prepared were not used for the index",
            extra={"passed_over": passed_over},
        )
    return private


def _raise_format(path: Path) -> None:
    """Mark the directory as holding lines of record version 2: releases that cannot read them then refuse it."""
    with _META_LOCK:
        meta = _read_meta(path)
        if meta.get("format") != FORMAT_VERSION:
            _write_meta(path, {"upstreams": {}, **meta, "format": FORMAT_VERSION})


def check_format(path: Path) -> None:
    """Raise StorageFailed if a newer release wrote the directory."""
    meta = _read_meta(path)
    if meta and meta.get("format") not in range(1, FORMAT_VERSION + 1):
        raise StorageFailed(
            f"The data directory {path} has format {meta.get('format')!r}; this release reads formats up to "
            f"{FORMAT_VERSION}.",
            hint="It was written by a newer kdproxy: upgrade, or give another --data-dir.",
            code="data_dir_newer",
        )


def known_upstreams(path: Path) -> dict[str, str]:
    """Return the upstreams that a directory remembers, name to URL. Raises StorageFailed."""
    return dict(_read_meta(path).get("upstreams", {}))


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        text = (path / MARKER_NAME).read_bytes()
    except FileNotFoundError:
        return {}
    try:
        meta = orjson.loads(text)
        if isinstance(meta, dict):
            return meta
    except orjson.JSONDecodeError:
        pass
    raise StorageFailed(
        f"{path / 'directory.json'} is damaged.",
        hint="Move it away: kdproxy writes a new one. Only the recorded upstream URLs are lost; no answer is.",
        code="data_dir_damaged",
    )


def _write_meta(path: Path, meta: Mapping[str, object]) -> None:
    temporary = path / "directory.json.new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(orjson.dumps(meta, option=orjson.OPT_INDENT_2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path / MARKER_NAME)
    sync_directory(path)
