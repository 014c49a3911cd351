"""The manifest of a checkpoint: what belongs to it, with the SHA-256 of every file. docs/formats/checkpoint.md.

It seals itself: its last member is the SHA-256 of all bytes before that member, so that a flipped byte in the manifest
is found as surely as one in a file.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainhooks.errors import CheckpointInvalid

MANIFEST_VERSION = 1
MANIFEST = "manifest.json"
_BODY_END = b"\n}"
_SEALED_END = re.compile(rb',\n "sha256": "([0-9a-f]{64})"\n}\n\Z')


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
    serial: int
    """Counts the checkpoints of a directory. The highest is the newest, also after a run went back to an old step."""
    session_id: str
    attempt: int
    created_at: float
    """UTC Unix seconds."""
    files: Mapping[str, FileRecord]
    """By name relative to the checkpoint's directory, the manifest left out."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    world: int = 1

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files.values())


def encode(manifest: Manifest) -> bytes:
    """Return the manifest's text, sealed."""
    members = {
        "v": MANIFEST_VERSION,
        "step": manifest.step,
        "serial": manifest.serial,
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
    body = json.dumps(members, indent=1).encode().removesuffix(_BODY_END)
    return body + b',\n "sha256": "' + hashlib.sha256(body).hexdigest().encode() + b'"\n}\n'


def decode(text: bytes) -> Manifest:
    """Read a manifest.

    Raises:
        CheckpointInvalid: not a manifest, damaged, or one of a newer version.
    """
    try:
        members: dict[str, Any] = json.loads(_unseal(text) + _BODY_END)
        version = members["v"]
        if version != MANIFEST_VERSION:
            raise CheckpointInvalid(
                f"The manifest has version {version!r}; this release reads version {MANIFEST_VERSION}.",
                hint="It was written by a newer trainhooks: upgrade to read it.",
                code="checkpoint_newer",
            )
        return Manifest(
            step=members["step"],
            serial=members["serial"],
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
            f"The manifest cannot be read ({error}).", hint="`trainhooks verify DIR` shows which checkpoints are whole."
        ) from error


def _unseal(text: bytes) -> bytes:
    end = _SEALED_END.search(text)
    if end is None:
        raise ValueError("it has no seal at its end")
    body = text[: end.start()]
    if hashlib.sha256(body).hexdigest().encode() != end[1]:
        raise ValueError("its seal does not match")
    return body
