"""Checks that sealed segments have not changed since they were sealed: part of `verify`, from the lines it reads."""

import hashlib
from collections.abc import Iterator
from typing import NamedTuple

from kdproxy.storage.manifest import NAME as MANIFEST_NAME
from kdproxy.storage.manifest import Changes, Manifest

_NOTHING = hashlib.sha256().hexdigest()


_NO_MANIFEST = (
    "segments.json: compare the segments with those of a copy. The next start makes it anew from what is there."
)
_MISSING = (
    "A missing segment: put it back from a copy and start again. If it is gone for good: "
    "`kdproxy verify --accept-loss`."
)
_ADDED = "An added segment: the next start reads it. If it is not yours, stop the proxy and move it away first."
_CHANGED = (
    "A changed segment: if you did not change it, put it back from a copy, or add what it lost with "
    "`kdproxy warm COPY`. The next start accepts it as it is."
)


class SegmentProblem(NamedTuple):
    """What is wrong with one segment."""

    name: str
    reason: str
    hint: str
    """What to do."""


class SegmentCheck:
    """Takes the journal's lines in order, then reports which segments have changed.

    Created before the journal is read: segments that are sealed later are not checked.
    """

    def __init__(self, manifest: Manifest | None) -> None:
        self._checksums = {} if manifest is None else manifest.checksums
        self._missing = () if manifest is None else manifest.missing
        self._changes = Changes() if manifest is None else manifest.changes
        self._is_damaged = manifest is not None and manifest.is_damaged
        self._name = ""
        self._digest = hashlib.sha256()
        self._found: dict[str, str] = {}

    def take(self, name: str, raw: bytes) -> None:
        """Take a line of a segment."""
        if name != self._name:
            self._finish()
            self._name, self._digest = name, hashlib.sha256()
        self._digest.update(raw)

    def problems(self) -> Iterator[SegmentProblem]:
        """Yield the segments that changed since they were sealed."""
        self._finish()
        if self._is_damaged:
            yield SegmentProblem(
                MANIFEST_NAME,
                "it is damaged and does not show which sealed segments changed or are gone",
                _NO_MANIFEST,
            )
        for name in self._missing:
            yield SegmentProblem(name, "it is missing: its answers are bought again when they are requested", _MISSING)
        for name in self._changes.added:
            yield SegmentProblem(name, "it was added since the last start", _ADDED)
        for name, checksum in self._checksums.items():
            if name in self._changes.edited or self._found.get(name, _NOTHING) != checksum:
                yield SegmentProblem(name, "it was changed since it was sealed", _CHANGED)

    def _finish(self) -> None:
        if self._name:
            self._found[self._name] = self._digest.hexdigest()
