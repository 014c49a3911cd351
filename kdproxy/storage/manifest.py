"""The manifest of the sealed segments, `segments.json`: the state of each when it was sealed.

A sealed segment must never change. A start detects changes cheaply, by size, time and inode; the checksum is compared
where those differ (a copied directory) or `verify` runs. The result decides whether the index still matches.
"""

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import orjson

from kdproxy.storage.durable import sync_directory
from kdproxy.storage.log_files import SEALED

log = logging.getLogger("kdproxy.storage")

NAME = "segments.json"
FORMAT_VERSION = 1
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A sealed segment as it was at the last scan."""

    bytes: int
    sha256: str
    mtime_ns: int
    inode: int
    is_missing: bool = False
    """Its file is gone. Its number is not reused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Names of the segments that differ from the manifest."""

    edited: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.edited or self.added or self.removed)


@dataclass(slots=True)
class Manifest:
    """The segments of one directory, by file name."""

    directory: Path
    segments: Mapping[str, Segment] = field(default_factory=dict)
    is_new: bool = True
    """Whether no manifest existed: an earlier release wrote the directory."""
    is_damaged: bool = False
    """Whether the file could not be used: it does not show which segments have changed or are missing."""
    changes: Changes = field(default_factory=Changes)
    """What `rescan` found and has not been logged yet; segments found by the first scan are no change."""

    @classmethod
    def load(cls, directory: Path) -> "Manifest":
        """Read the manifest; one that is missing, damaged or of another format is rebuilt. Raises OSError."""
        try:
            text = (directory / NAME).read_bytes()
        except FileNotFoundError:
            return cls(directory)
        try:
            members = orjson.loads(text)
            if members["format"] == FORMAT_VERSION:
                segments = {name: Segment(**found) for name, found in members["segments"].items()}
                return cls(directory, segments, is_new=False)
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
            pass
        log.warning("segments.json cannot be used and is rebuilt from the sealed segments", extra={})
        return cls(directory, is_damaged=True)

    @property
    def last_number(self) -> int:
        """The highest number that a segment has or had; 0: none."""
        return max(map(number_of, self.segments), default=0)

    @property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of each existing segment, by name."""
        return {name: found.sha256 for name, found in self.segments.items() if not found.is_missing}

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the segments whose files are gone."""
        return tuple(sorted(name for name, found in self.segments.items() if found.is_missing))

    def rescan(self, *, trusts_inodes: bool) -> bool:
        """Scan the segments on disk and note what has changed. Raises OSError.

        Returns:
            Whether the manifest file is out of date.

        Reads the files whose size, time or inode differ, which may take a second per gigabyte.

        Args:
            trusts_inodes: false on file systems that change inode numbers at each mount.
        """
        present = {path.name: path for path in self.directory.iterdir() if SEALED.fullmatch(path.name)}
        now: dict[str, Segment] = {}
        edited: list[str] = []
        added: list[str] = []
        for name, path in sorted(present.items()):
            found, known = path.stat(), self.segments.get(name)
            if not found.st_size and known is None:
                continue  # reserves the name of a seal that a kill interrupted
            is_same = (
                known is not None
                and not known.is_missing
                and (known.bytes, known.mtime_ns) == (found.st_size, found.st_mtime_ns)
                and (known.inode == found.st_ino or not trusts_inodes)
            )
            now[name] = known if known is not None and is_same else _segment(path)
            if known is None or known.is_missing:
                # The next number is our own segment: a kill came between the seal and its entry here.
                if number_of(name) != self.last_number + 1:
                    added.append(name)
            elif known.sha256 != now[name].sha256:
                edited.append(name)
        removed = [name for name, known in self.segments.items() if name not in present and not known.is_missing]
        now |= {name: replace(known, is_missing=True) for name, known in self.segments.items() if name not in present}
        is_other, self.segments = now != self.segments or self.is_damaged, now
        self.changes = Changes(edited=tuple(edited), added=() if self.is_new else tuple(added), removed=tuple(removed))
        return is_other

    def forget_missing(self) -> None:
        """Accept the missing segments as lost for good."""
        self.segments = {name: found for name, found in self.segments.items() if not found.is_missing}

    def add(self, name: str) -> None:
        """Add a segment that was just sealed."""
        try:
            self.segments = {**self.segments, name: _segment(self.directory / name)}
        except OSError as error:
            log.warning("the sealed segment cannot be read", extra={"name": name, "error": error.strerror})
            return
        self.write()

    def write(self) -> None:
        """Write the manifest. A failed write is logged, and the next start repeats it."""
        try:
            self._write()
            self.is_damaged = False
        except OSError as error:
            log.warning("the manifest of sealed segments could not be written", extra={"error": error.strerror})

    def _write(self) -> None:
        segments = {name: asdict(found) for name, found in sorted(self.segments.items())}
        temporary = self.directory / f"{NAME}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps({"format": FORMAT_VERSION, "segments": segments}, option=orjson.OPT_INDENT_2))
            file.write(b"\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.directory / NAME)
        sync_directory(self.directory)


def number_of(name: str) -> int:
    """Return a sealed segment's number from its file name."""
    found = SEALED.fullmatch(name)
    assert found is not None
    return int(found[1])


def _segment(path: Path) -> Segment:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return Segment(bytes=status.st_size, sha256=digest.hexdigest(), mtime_ns=status.st_mtime_ns, inode=status.st_ino)
