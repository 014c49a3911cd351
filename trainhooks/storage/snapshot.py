"""progress.json: the progress of a training, replaced about once a second. docs/formats/session.md.

It is replaced without a sync: after a power cut the last second or the file may be missing, which affects only the
recorded seconds of the attempt that was cut off.
"""

import json
from pathlib import Path
from typing import Any

from trainhooks.storage import atomic

NAME = "progress.json"
SNAPSHOT_VERSION = 1
_NEEDED = {"at", "attempt", "step", "attempt_seconds"}


def write(path: Path, members: dict[str, Any]) -> None:
    """Replace the snapshot atomically."""
    atomic.write(path, json.dumps({"v": SNAPSHOT_VERSION, **members}, indent=1).encode() + b"\n", durable=False)


def read(path: Path) -> dict[str, Any] | None:
    """Return the snapshot, or None if it is missing or unreadable."""
    try:
        members = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    if not isinstance(members, dict) or members.get("v") != SNAPSHOT_VERSION or not members.keys() >= _NEEDED:
        return None
    return members
