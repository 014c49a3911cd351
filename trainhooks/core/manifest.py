"""The manifest of a checkpoint: what belongs to it, with the SHA-256 of every file. docs/formats/checkpoint.md."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainhooks.errors import CheckpointInvalid

MANIFEST_VERSION = 1
MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """One file of a checkpoint."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a published checkpoint says of itself."""

    step: int
    """Steps that were finished when it was taken."""
    session_id: str
    attempt: int
    created_at: float
    """UTC Unix seconds."""
    files: Mapping[str, FileRecord]
    """By name relative to the checkpoint's directory, the manifest left out."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    world: int = 1


def encode(manifest: Manifest) -> bytes:
    """Return the manifest's JSON text."""
    members = {
        "v": MANIFEST_VERSION,
        "step": manifest.step,
        "session_id": manifest.session_id,
        "attempt": manifest.attempt,
        "created_at": manifest.created_at,
        "world": manifest.world,
        "tags": list(manifest.tags),
        "metrics": dict(manifest.metrics),
        "files": {
            name: {"size_bytes": file.size_bytes, "sha256": file.sha256}
            for name, file in sorted(manifest.files.items())
        },
    }
    return json.dumps(members, indent=1).encode() + b"\n"


def decode(text: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        CheckpointInvalid: not a manifest, or one of a newer version.
    """
    try:
        members: dict[str, Any] = json.loads(text)
        version = members["v"]
        if version != MANIFEST_VERSION:
            raise CheckpointInvalid(
                f"The manifest has version {version!r}; this release reads version {MANIFEST_VERSION}.",
                hint="It was written by a newer trainhooks: upgrade to read it.",
            )
        return Manifest(
            step=members["step"],
            session_id=members["session_id"],
            attempt=members["attempt"],
            created_at=members["created_at"],
            world=members["world"],
            tags=tuple(members["tags"]),
            metrics=members["metrics"],
            files={name: FileRecord(**file) for name, file in members["files"].items()},
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointInvalid(
            f"The manifest cannot be read ({error}).", hint="`trainhooks verify DIR` tells which checkpoints are whole."
        ) from error
