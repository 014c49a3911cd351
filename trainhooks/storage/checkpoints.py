"""Checkpoints on disk: written beside the others, published by one rename, verified before they are believed.

The directories are the truth. A directory without a whole manifest is no checkpoint; one whose files do not match it is
moved aside and never used.
"""

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainhooks.core import manifest as manifests
from trainhooks.core.manifest import MANIFEST, FileRecord, Manifest
from trainhooks.errors import CheckpointInvalid
from trainhooks.storage import atomic, tensors
from trainhooks.storage.tensors import Blob

PREFIX = "step-"
_DRAFT = ".draft-"
_QUARANTINE = "quarantine"
_DIGITS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One published checkpoint."""

    path: Path
    manifest: Manifest


class Draft:
    """A checkpoint being written: a hidden directory beside the published ones."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, FileRecord] = {}

    def write_tensors(self, name: str, blobs: Iterable[Blob]) -> None:
        """Write `name`.safetensors."""
        self.files[name + tensors.SUFFIX] = tensors.write(self.path / (name + tensors.SUFFIX), blobs)

    def write_text(self, name: str, text: bytes) -> None:
        """Write a small file."""
        self.files[name] = tensors.write_pieces(self.path / name, [memoryview(text)])


class CheckpointStore:
    """The checkpoints of one session, in one directory. One process publishes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def begin(self, step: int) -> Draft:
        """Start a checkpoint; what an earlier, killed attempt left of it goes."""
        draft = self.root / f"{_DRAFT}{step:0{_DIGITS}}"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        return Draft(draft)

    def publish(self, draft: Draft, manifest: Manifest) -> Checkpoint:
        """Make a draft a checkpoint. It is verified from disk first; a power cut leaves it whole or not there."""
        text = manifests.encode(manifest)
        tensors.write_pieces(draft.path / MANIFEST, [memoryview(text)])
        atomic.sync_directory(draft.path)
        verify(draft.path)
        target = self.root / f"{PREFIX}{manifest.step:0{_DIGITS}}"
        if target.exists():
            self.quarantine(target, "replaced")
        draft.path.rename(target)
        atomic.sync_directory(self.root)
        return Checkpoint(path=target, manifest=manifest)

    def list(self) -> list[Checkpoint]:
        """Return the published checkpoints with a readable manifest, oldest first; their files are not read."""
        found = []
        for path in sorted(self.root.glob(PREFIX + "*")):
            try:
                found.append(Checkpoint(path=path, manifest=read_manifest(path)))
            except CheckpointInvalid:
                continue
        return sorted(found, key=lambda checkpoint: checkpoint.manifest.step)

    def newest_good(self) -> Checkpoint | None:
        """Return the newest checkpoint whose every byte is as it was written; damaged ones are moved aside."""
        for path in sorted(self.root.glob(PREFIX + "*"), reverse=True):
            try:
                return Checkpoint(path=path, manifest=verify(path))
            except CheckpointInvalid as error:
                self.quarantine(path, str(error))
        return None

    def quarantine(self, path: Path, reason: str) -> Path:
        """Move a checkpoint aside, with the reason beside it."""
        folder = self.root / _QUARANTINE
        folder.mkdir(exist_ok=True)
        number = 0
        while (target := folder / f"{path.name}-{number}").exists():
            number += 1
        path.rename(target)
        (folder / f"{target.name}.reason.txt").write_text(reason + "\n", encoding="utf-8")
        atomic.sync_directory(self.root)
        return target

    def remove(self, checkpoint: Checkpoint) -> None:
        """Delete a published checkpoint: first its name, so that no half of it is ever found."""
        doomed = self.root / f".doomed-{checkpoint.path.name}"
        checkpoint.path.rename(doomed)
        shutil.rmtree(doomed)


def read_manifest(path: Path) -> Manifest:
    """Read a checkpoint's manifest.

    Raises:
        CheckpointInvalid: not there or not readable.
    """
    try:
        return manifests.decode((path / MANIFEST).read_bytes())
    except OSError as error:
        raise CheckpointInvalid(
            f"{path.name} has no readable manifest ({error.strerror}).", hint="An earlier checkpoint is used instead."
        ) from error


def verify(path: Path) -> Manifest:
    """Read every file of a checkpoint and compare it with the manifest.

    Raises:
        CheckpointInvalid: naming the first file that differs.
    """
    manifest = read_manifest(path)
    for name, record in manifest.files.items():
        _verify_file(path, name, record)
    return manifest


def _verify_file(path: Path, name: str, record: FileRecord) -> None:
    hint = "An earlier checkpoint is used instead; this one is kept under quarantine/."
    try:
        found = tensors.digest(path / name)
    except OSError as error:
        raise CheckpointInvalid(f"{path.name}/{name} cannot be read ({error.strerror}).", hint=hint) from error
    if found.size_bytes != record.size_bytes:
        raise CheckpointInvalid(
            f"{path.name}/{name} has {found.size_bytes} bytes instead of {record.size_bytes}.", hint=hint
        )
    if found.sha256 != record.sha256:
        raise CheckpointInvalid(f"{path.name}/{name} is damaged: its SHA-256 does not match.", hint=hint)


def describe(checkpoints: Iterable[Checkpoint]) -> list[Mapping[str, object]]:
    """Return what checkpoints.json says of each."""
    return [
        {
            "path": str(checkpoint.path),
            "step": checkpoint.manifest.step,
            "created_at": checkpoint.manifest.created_at,
            "metrics": dict(checkpoint.manifest.metrics),
            "tags": list(checkpoint.manifest.tags),
            "size_bytes": sum(file.size_bytes for file in checkpoint.manifest.files.values()),
        }
        for checkpoint in checkpoints
    ]
