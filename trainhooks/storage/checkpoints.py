"""Checkpoints on disk: written beside the others, published by one rename, verified before use.

The directories are the truth. A directory without an intact manifest is no checkpoint; one whose files do not match it
is moved aside and never used. docs/formats/checkpoint.md.
"""

import logging
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from trainhooks.core import manifest as manifests
from trainhooks.core import metric_name, retention
from trainhooks.core.manifest import MANIFEST, Manifest
from trainhooks.core.retention import Candidate, Retention
from trainhooks.errors import CheckpointFailed, CheckpointInvalid
from trainhooks.storage import atomic, durable_file
from trainhooks.storage.draft import Draft
from trainhooks.storage.verification import read_manifest, verify, verify_written

log = logging.getLogger("trainhooks.storage")

_PUBLISHED = re.compile(r"step-\d{9,}(-\d+)?")
_DRAFT = ".draft"
_DOOMED = ".doomed"
QUARANTINE = "quarantine"
CHECKPOINTS = "checkpoints"
"""The directory below a session's output directory."""
_SPACE_FACTOR = 1.2
"""Free space required for a save, in sizes of the last checkpoint."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One published checkpoint."""

    path: Path
    manifest: Manifest


class CheckpointStore:
    """The checkpoints of one session, in one directory. One process publishes and deletes.

    Args:
        root: the directory; created with the first checkpoint.
        session_id: the session that publishes here. Checkpoints of other sessions are read, never deleted.
    """

    def __init__(self, root: Path, session_id: str) -> None:
        self.root = root
        self.session_id = session_id
        self._damaged: dict[Path, str] = {}
        self._unmeasured: set[str] = set()
        """Metrics of `keep_best` that no checkpoint had, each reported once."""

    def clean(self) -> None:
        """At start: remove what a killed process of this session left half written or half deleted."""
        for kind in (_DRAFT, _DOOMED):
            for path in self.root.glob(f"{kind}-{self.session_id}-*"):
                shutil.rmtree(path)

    def require_space(self, size_bytes: int) -> None:
        """Check that a checkpoint of about this size fits on the disk.

        Raises:
            CheckpointFailed: it does not fit.
        """
        last = self.published()[-1:]
        needed = max(size_bytes, *(int(_SPACE_FACTOR * each.manifest.size_bytes) for each in last), 0)
        atomic.make_directory(self.root)
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise CheckpointFailed(
                f"A checkpoint needs {needed / 1e6:,.0f} MB and {self.root} has {free / 1e6:,.0f} MB free.",
                hint="Free space on this disk, or keep fewer checkpoints (keep_last, keep_best, keep_every_steps).",
                code="no_space",
            )

    def draft_path(self, step: int) -> Path:
        """Where the checkpoint of a step is written; the same on every rank."""
        return self.root / f"{_DRAFT}-{self.session_id}-{step:09d}"

    def begin(self, step: int) -> Draft:
        """Start a checkpoint; delete what an earlier attempt left of it."""
        path = self.draft_path(step)
        if path.exists():
            shutil.rmtree(path)
        atomic.make_directory(path)
        return Draft(path)

    def publish(self, draft: Draft, manifest: Manifest) -> Checkpoint:
        """Publish a draft. Each file was read back from the disk when it was written, and exactly these files must
        exist. After a power cut the checkpoint is either complete or absent.

        Raises:
            CheckpointInvalid: what was read back is not what was written.
        """
        text = manifests.encode(manifest)
        durable_file.write(draft.path / MANIFEST, [memoryview(text)])
        draft.sync()
        verify_written(draft.path)
        target = self.root / f"step-{manifest.step:09d}"
        if target.exists():
            target = self.root / f"{target.name}-{manifest.serial}"
        draft.path.rename(target)
        atomic.sync_directory(self.root)
        return Checkpoint(path=target, manifest=manifest)

    def next_serial(self) -> int:
        """Return the serial of the checkpoint that is published next."""
        return max((each.manifest.serial for each in self.published()), default=0) + 1

    def published(self) -> list[Checkpoint]:
        """Return the published checkpoints with a readable manifest, oldest first; their files are not read."""
        return published(self.root)

    def newest_good(self) -> Checkpoint | None:
        """Return the newest intact checkpoint, every byte verified. Changes nothing: `move_damaged_aside` moves the
        damaged ones.

        None only if no checkpoint was ever published.

        Raises:
            CheckpointInvalid: no checkpoint is intact, or one comes from a newer release.
        """
        reasons = []
        for path in directories(self.root):
            try:
                read_manifest(path)
            except CheckpointInvalid as error:
                reasons.append(self._note_damage(path, error))
        for checkpoint in reversed(self.published()):
            try:
                return replace(checkpoint, manifest=verify(checkpoint.path))
            except CheckpointInvalid as error:
                reasons.append(self._note_damage(checkpoint.path, error))
        damaged = reasons or [f"{path.name}: {reason}" for path, reason in set_aside(self.root)]
        if damaged:
            raise CheckpointInvalid(
                f"No checkpoint in {self.root} is whole: {' '.join(sorted(damaged))}",
                hint=f"Restore one from a backup, or move {self.root} away to start from the beginning.",
                code="no_good_checkpoint",
            )
        return None

    def prune(self, rules: Retention) -> list[Path]:
        """Delete this session's checkpoints that no rule keeps; return their paths."""
        mine = {each.manifest.serial: each for each in self.published() if each.manifest.session_id == self.session_id}
        candidates = [
            Candidate(
                serial=serial,
                step=each.manifest.step,
                metrics=dict(each.manifest.metrics),
                tags=frozenset(each.manifest.tags),
            )
            for serial, each in mine.items()
        ]
        self._say_if_unmeasured(candidates, rules)
        gone = [mine[serial].path for serial in retention.doomed(candidates, rules)]
        for path in gone:
            self._remove(path)
        return gone

    def _say_if_unmeasured(self, candidates: list[Candidate], rules: Retention) -> None:
        best = rules.keep_best
        if best is None or best.metric in self._unmeasured or retention.is_measured(best.metric, candidates):
            return
        if not retention.doomed(candidates, replace(rules, keep_best=None)):
            return
        self._unmeasured.add(best.metric)
        names = sorted({name for each in candidates for name in each.metrics})
        near = metric_name.near(best.metric, names)
        log.error(
            "keep_best: no checkpoint has the metric %r, so none is deleted and the disk fills. %s. Give"
            " save_checkpoint(metrics={%r: ...}) or record it with update_metrics",
            best.metric,
            f"Did you mean {' or '.join(map(repr, near))}?" if near else f"Recorded are {', '.join(names) or 'none'}",
            best.metric,
        )

    def _note_damage(self, path: Path, error: CheckpointInvalid) -> str:
        if error.code != CheckpointInvalid.default_code:
            raise error
        self._damaged[path] = error.message
        log.warning("%s", error.message)
        return error.message

    def move_damaged_aside(self) -> None:
        """Move what `newest_good` found damaged to quarantine/, each with a file that names the reason."""
        for path, reason in self._damaged.items():
            target = self.quarantine(path, reason)
            log.warning("%s was moved to %s", path.name, target.relative_to(self.root))
        self._damaged.clear()

    def quarantine(self, path: Path, reason: str) -> Path:
        """Move a checkpoint to quarantine/, with a file that names the reason."""
        folder = self.root / QUARANTINE
        folder.mkdir(exist_ok=True)
        number = 0
        while (target := folder / f"{path.name}.{number}").exists():
            number += 1
        (folder / f"{target.name}.reason.txt").write_text(reason + "\n", encoding="utf-8")
        path.rename(target)
        atomic.sync_directory(folder)
        atomic.sync_directory(self.root)
        return target

    def _remove(self, path: Path) -> None:
        """Delete a published checkpoint: rename it first, so that no half of it is ever found."""
        doomed = self.root / f"{_DOOMED}-{self.session_id}-{path.name}"
        path.rename(doomed)
        atomic.sync_directory(self.root)
        shutil.rmtree(doomed)


def published(root: Path) -> list[Checkpoint]:
    """Return the published checkpoints of a directory with a readable manifest, oldest first; files are not read."""
    found = []
    for path in directories(root):
        try:
            found.append(Checkpoint(path=path, manifest=read_manifest(path)))
        except CheckpointInvalid:
            continue
    return sorted(found, key=lambda checkpoint: checkpoint.manifest.serial)


def set_aside(root: Path) -> list[tuple[Path, str]]:
    """Return the damaged checkpoints that were moved aside, by name, each with the reason."""
    found = []
    for path in sorted((root / QUARANTINE).glob("step-*")):
        if path.is_dir():
            reason = path.with_name(f"{path.name}.reason.txt")
            found.append((path, reason.read_text(encoding="utf-8").strip() if reason.is_file() else "It was damaged."))
    return found


def directories(root: Path) -> list[Path]:
    """Return every directory that was published as a checkpoint, intact or not, by name."""
    return sorted(path for path in root.glob("step-*") if _PUBLISHED.fullmatch(path.name) and path.is_dir())
