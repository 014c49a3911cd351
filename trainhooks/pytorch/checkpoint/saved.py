"""The files of a checkpoint, by name, and its JSON."""

import json
from pathlib import Path
from typing import Any

from trainhooks.errors import StateUnsupported

STATE = "state.json"
STATE_VERSION = 2
"""Written; 1, which knew no tensors that are dealt out over ranks, is read."""
RANK = "rank-{:05d}"
"""What a rank has for itself: .json and .safetensors."""
SHARD = "sharded/rank-{:05d}"
"""Its parts of tensors that are dealt out: .json, and .OBJECT.safetensors for each object."""
GRADIENTS = "gradients"
"""Named as an object is: gradients that are dealt out."""


def read_json(checkpoint: Path, name: str) -> dict[str, Any]:
    """Read state.json or a rank's own.

    Raises:
        StateUnsupported: of a newer version.
    """
    members: dict[str, Any] = json.loads((checkpoint / name).read_bytes())
    if members["v"] not in (1, STATE_VERSION):
        raise StateUnsupported(
            f"{checkpoint.name}/{name} has version {members['v']!r}; this release reads up to {STATE_VERSION}.",
            hint="It was written by a newer trainhooks: upgrade to read it.",
        )
    return members


def encode(members: dict[str, Any]) -> bytes:
    """Return members as such a file."""
    return json.dumps({"v": STATE_VERSION, **members}).encode()
