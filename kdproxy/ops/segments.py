"""Checks that sealed segments have not changed since they were sealed: part of `verify`, from the lines it reads."""

import hashlib
from collections.abc import Iterator

from kdproxy.storage.manifest import Changes, Manifest

_NOTHING = hashlib.sha256().hexdigest()


class SegmentCheck:
    """Takes the journal's lines in order, then reports which segments have changed.

    Created before the journal is read: segments that are sealed later are not checked.
    """

    def __init__(self, manifest: Manifest | None) -> None:
        self._checksums = {} if manifest is None else manifest.checksums
        self._missing = () if manifest is None else manifest.missing
        self._changes = Changes() if manifest is None else manifest.changes
        self._name = ""
        self._digest = hashlib.sha256()
        self._found: dict[str, str] = {}

    def take(self, name: str, raw: bytes) -> None:
        """Take a line of a segment."""
        if name != self._name:
            self._finish()
            self._name, self._digest = name, hashlib.sha256()
        self._digest.update(raw)

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield the segments that changed since they were sealed, and how."""
        self._finish()
        for name in self._missing:
            yield name, "it is missing: restore it, or accept the loss with `kdproxy verify --accept-loss`"
        for name in self._changes.added:
            yield name, "it was added since the last start; the next start reads it"
        for name, checksum in self._checksums.items():
            if name in self._changes.edited or self._found.get(name, _NOTHING) != checksum:
                yield name, "it was changed since it was sealed; the next start reads it again"

    def _finish(self) -> None:
        if self._name:
            self._found[self._name] = self._digest.hexdigest()
