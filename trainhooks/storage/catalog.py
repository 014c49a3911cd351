"""checkpoints.json: every checkpoint that a run can resume from, with its tags. docs/formats/session.md.

Own checkpoints are found by their directories each time. Files that the user saved and registered have only their
entry here (and an event in metrics.jsonl, from which a damaged file is rebuilt); they are never touched.
"""

import json
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trainhooks.core.manifest import Manifest
from trainhooks.storage import atomic, branch, metrics
from trainhooks.storage.branch import REGISTERED, Branch
from trainhooks.storage.checkpoints import CHECKPOINTS, Checkpoint, published

log = logging.getLogger("trainhooks.storage")

NAME = "checkpoints.json"
CATALOG_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recoverable:
    """A checkpoint that a run can resume from."""

    path: str
    """Relative to the output directory if inside it, else absolute."""
    step: int
    created_at: float
    """UTC Unix seconds."""
    tags: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    size_bytes: int | None = None
    """None: the file did not exist when it was registered."""
    position: Any = None
    """The data position that the user gave."""
    is_registered: bool = False
    """Whether the user saved it; else it is one of our own."""


class Catalog:
    """The checkpoints of one output directory. Thread-safe."""

    def __init__(self, output_dir: Path) -> None:
        self._lock = threading.Lock()
        self._output_dir = output_dir
        self._path = output_dir / "progress" / NAME
        self._registered = registered(output_dir)

    def register(self, entry: Recoverable) -> None:
        """Remember a file that the user saved; the last registration of a path counts. `write` makes it durable."""
        with self._lock:
            self._registered[entry.path] = entry

    def write(self, *, durable: bool = True) -> list[Recoverable]:
        """Rewrite checkpoints.json; return its entries. A torn file after a power cut is rebuilt later."""
        with self._lock:
            found = self.entries()
            members = {"v": CATALOG_VERSION, "checkpoints": [asdict(entry) for entry in found]}
            atomic.write(self._path, json.dumps(members, indent=1).encode() + b"\n", durable=durable)
        return found

    def entries(self) -> list[Recoverable]:
        """Return all checkpoints, oldest step first."""
        return entries(self._output_dir, published(self._output_dir / CHECKPOINTS), self._registered.values())


def entries(output_dir: Path, own: Iterable[Checkpoint], others: Iterable[Recoverable]) -> list[Recoverable]:
    """Merge own and registered checkpoints into one list, oldest step first."""
    found = [_own(output_dir, checkpoint) for checkpoint in own]
    return sorted([*found, *others], key=lambda entry: (entry.step, entry.created_at))


def newest(output_dir: Path, tag: str | None = None, *, resumed: tuple[int, int] | None = None) -> Path | None:
    """Return the checkpoint with the highest step on the live branch, own or registered.

    Steps after the one that a later attempt resumed at are abandoned: their checkpoint is returned only for a `tag`
    that no other has. A registered file whose size has changed is skipped with a warning. Safe beside a process that
    writes.

    Args:
        resumed: the running attempt and the step that it resumed at, which no file has yet.
    """
    own = published(output_dir / CHECKPOINTS)
    found = [
        entry for entry in entries(output_dir, own, registered(output_dir).values()) if tag is None or tag in entry.tags
    ]
    attempts = branch.read(output_dir)
    if resumed is not None:
        attempts.starts[resumed[0]] = resumed[1]
    live = live_of(found, attempts, own)
    for entry in reversed(live or (found if tag is not None else [])):
        path = output_dir / entry.path
        if not path.exists():
            continue
        if has_other_size(path, entry):
            log.warning(
                "%s was skipped: it had %d bytes when it was registered and has another size now",
                path,
                entry.size_bytes,
            )
            continue
        return path
    return None


def live_of(found: Iterable[Recoverable], attempts: Branch, own: Iterable[Checkpoint]) -> list[Recoverable]:
    """Return the entries on the live branch, in order."""
    by_attempt = {each.path.name: each.manifest.attempt for each in own}

    def is_live(entry: Recoverable) -> bool:
        if entry.is_registered:
            return attempts.is_path_live(entry.path, entry.step)
        attempt = by_attempt.get(Path(entry.path).name)
        return attempt is None or attempts.is_live(entry.step, attempt)

    return [entry for entry in found if is_live(entry)]


def has_other_size(path: Path, entry: Recoverable) -> bool:
    """Whether the size of a registered file has changed. False for directories."""
    return entry.is_registered and path.is_file() and entry.size_bytes not in (None, path.stat().st_size)


def describe(path: Path, output_dir: Path, *, step: int, tags: tuple[str, ...], **more: Any) -> Recoverable:
    """Describe a file or directory of the user as it is now."""
    whole, root = path.absolute(), output_dir.absolute()
    size: int | None
    if path.is_dir():
        size = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    else:
        size = path.stat().st_size if path.exists() else None
    return Recoverable(
        path=str(whole.relative_to(root) if whole.is_relative_to(root) else whole),
        step=step,
        created_at=time.time(),
        tags=tags,
        size_bytes=size,
        is_registered=True,
        **more,
    )


def registered(output_dir: Path) -> dict[str, Recoverable]:
    """Return the registered files by path, from checkpoints.json or, where that is damaged, from metrics.jsonl."""
    path = output_dir / "progress" / NAME
    try:
        members = json.loads(path.read_bytes())
        found = [_entry(each) for each in members["checkpoints"] if each["is_registered"]]
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        log.warning("%s is damaged (%s): it is made again", path, error)
        lines = metrics.read_lines(output_dir) if metrics.locate(output_dir).is_file() else iter(())
        found = [_entry(line["checkpoint"]) for line in lines if line.get("kind") == REGISTERED]
    return {entry.path: entry for entry in found}


def listed(output_dir: Path) -> list[Recoverable]:
    """Return our own checkpoints as checkpoints.json lists them, there or not."""
    try:
        members = json.loads((output_dir / "progress" / NAME).read_bytes())
        return [_entry(each) for each in members["checkpoints"] if not each["is_registered"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _entry(members: Mapping[str, Any]) -> Recoverable:
    return Recoverable(**{**members, "tags": tuple(members["tags"])})


def _own(output_dir: Path, checkpoint: Checkpoint) -> Recoverable:
    manifest: Manifest = checkpoint.manifest
    return Recoverable(
        path=str(checkpoint.path.relative_to(output_dir)),
        step=manifest.step,
        created_at=manifest.created_at,
        tags=manifest.tags,
        metrics=manifest.metrics,
        size_bytes=manifest.size_bytes,
    )
