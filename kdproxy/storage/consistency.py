"""Decides whether an index matches its journal, before either is opened and before anything is written."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from kdproxy.core.ports import Watermark
from kdproxy.errors import IndexDamaged, StorageFailed
from kdproxy.storage.disk import WATERMARK, peek
from kdproxy.storage.log_files import ACTIVE_NAME
from kdproxy.storage.manifest import Manifest, number_of
from kdproxy.storage.names import COUNTERS, OLD_WATERMARK

log = logging.getLogger("kdproxy.storage")

SEGMENTS = "segments"
"""Name of the index's row with the checksums of the segments that it has read."""
_OLD_COUNTERS = "counters"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What an index has read."""

    mark: Watermark
    answers: Mapping[str, int]
    prompts: int
    segments: Mapping[str, str] | None
    """Checksums by name; None: an earlier release made the index."""
    is_old: bool
    """Whether its rows are of format 1: only its sums can be used."""

    @property
    def total(self) -> int:
        """Recordings and recorded prompts."""
        return sum(self.answers.values()) + self.prompts


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do with an index."""

    known: Known | None
    """None: the index does not exist or cannot be read."""
    misfit: str | None
    """Why the index must be rebuilt; None: it matches."""


def judge(path: Path, index: Path | None, manifest: Manifest) -> Verdict:
    """Compare an index that no process has open with the journal's files, after the manifest has scanned them.

    Raises:
        StorageFailed: `journal_lost`: the journal is gone, and the index knows answers that were in it.
    """
    try:
        known = None if index is None else _known_by(index)
    except IndexDamaged as error:
        return Verdict(known=None, misfit=error.message)
    except StorageFailed as error:
        log.warning("the index cannot be compared with the journal", extra={"reason": error.message})
        return Verdict(known=None, misfit=None)
    if known is None:
        return Verdict(known=None, misfit=None)
    _refuse_lost(path, known, manifest)
    return Verdict(known=known, misfit=_misfit(known, manifest))


def log_changes(manifest: Manifest) -> None:
    """Log which segments have changed since they were sealed."""
    changes = manifest.changes
    if changes.edited or changes.added:
        log.warning(
            "sealed journal segments have changed since they were sealed: all segments are read again",
            extra={"edited": ", ".join(changes.edited) or "none", "added": ", ".join(changes.added) or "none"},
        )
    if changes.removed:
        log.warning(
            "sealed journal segments are missing: their answers are bought again; restore them and restart, or accept "
            "the loss with kdproxy verify --accept-loss",
            extra={"removed": ", ".join(changes.removed)},
        )


def log_loss(known: Known, found: int) -> None:
    """Log that the journal holds fewer answers than its index knew."""
    if found < known.total and not known.is_old:  # format 1 counted differently
        log.warning(
            "the journal holds fewer answers than its index knew (an older copy, or removed lines): missing "
            "answers are bought again when they are requested",
            extra={"known": known.total, "found": found},
        )


def _known_by(index: Path) -> Known | None:
    rows = peek(index, (WATERMARK, COUNTERS, SEGMENTS, OLD_WATERMARK, _OLD_COUNTERS))
    is_old = WATERMARK not in rows
    mark, sums = (OLD_WATERMARK, _OLD_COUNTERS) if is_old else (WATERMARK, COUNTERS)
    try:
        if mark not in rows:
            return None
        counters = orjson.loads(rows.get(sums, b'{"answers":{},"prompts":0}'))
        return Known(
            mark=Watermark(*orjson.loads(rows[mark])),
            answers=dict(counters["answers"]),
            prompts=int(counters["prompts"]),
            segments=orjson.loads(rows[SEGMENTS]) if SEGMENTS in rows else None,
            is_old=is_old,
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise IndexDamaged("The index is not one of this release.", hint="Start again: it is rebuilt.") from error


def _refuse_lost(path: Path, known: Known, manifest: Manifest) -> None:
    """Refuse to continue: it would buy lost answers again, and a journal restored later would conflict with the new."""
    mark, active = known.mark, path / ACTIVE_NAME
    if not (known.total and mark.offset) or mark.segment in map(number_of, manifest.checksums) or _has_line(active):
        return
    counts = ", ".join(f"{count:,} of {upstream}" for upstream, count in sorted(known.answers.items()) if count)
    prompts = f" and {known.prompts:,} recorded prompts" if known.prompts else ""
    state = "empty" if active.exists() else "missing"
    raise StorageFailed(
        f"The journal {active} is {state}, but its index knows {sum(known.answers.values()):,} answers"
        f"{f' ({counts})' if counts else ''}{prompts}, read up to byte {mark.offset:,} of it. Nothing was changed.",
        hint=f"Restore {ACTIVE_NAME} from a copy before anything is bought again. If it is gone for good: kdproxy "
        f"verify --accept-loss --data-dir {path}",
        code="journal_lost",
    )


def _misfit(known: Known, manifest: Manifest) -> str | None:
    if known.is_old:
        return "It was made by an earlier release."
    now, read, changes = manifest.checksums, known.segments, manifest.changes
    if read is None:
        late = [name for name in changes.added if number_of(name) < known.mark.segment]
        changed = sorted({*changes.edited, *changes.removed, *late})
    else:
        other = {name for name, checksum in read.items() if now.get(name) != checksum}
        changed = sorted(other | {name for name in now.keys() - read if number_of(name) < known.mark.segment})
    return f"It was made from other segments ({', '.join(changed)})." if changed else None


def _has_line(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return any(b"\n" in chunk for chunk in iter(lambda: file.read(_READ_BYTES), b""))
    except FileNotFoundError:
        return False
