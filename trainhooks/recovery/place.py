"""Where runs usually are, and what kind of run a folder holds."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

USUAL = (
    "/content/workspace/checkpoints",
    "/content/workspace",
    "./training_output/checkpoints",
    "./training_output",
    "./tmp_training_output/checkpoints",
    "./tmp_training_output",
    "./checkpoints",
    "./output",
    "./outputs",
    "./runs",
    "./lightning_logs",
    ".",
    "/content/drive/MyDrive",
)
"""Looked at in this order where no directory is given; the last is where Colab mounts Google Drive."""

TORCH_SUFFIXES = frozenset({".pt", ".pth", ".ckpt"})
_MAX_CHILDREN = 200


class Kind(StrEnum):
    """Who wrote a run."""

    TRAINHOOKS = "trainhooks"
    HUGGING_FACE = "Hugging Face Trainer"
    LIGHTNING = "Lightning"
    TORCH = "torch checkpoints"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder that holds a run."""

    root: Path
    """The run's own folder: what `output_dir` was."""
    kind: Kind
    changed_at: float
    """UTC Unix seconds of the newest of its files."""


def look(path: Path) -> Iterator[Place]:
    """Yield the runs in a folder, beside it and one level below it, each once."""
    seen: set[Path] = set()
    for folder in _around(path):
        place = recognise(folder)
        if place is not None and place.root.resolve() not in seen:
            seen.add(place.root.resolve())
            yield place


def _around(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        return
    yield path
    if path.name in {"checkpoints", "progress"}:
        yield path.parent
    try:
        children = sorted((child for child in path.iterdir() if child.is_dir()), key=_changed, reverse=True)
    except OSError:
        return
    for child in children[:_MAX_CHILDREN]:
        yield child
        if child.name == "lightning_logs":
            yield from (version for version in child.iterdir() if version.is_dir())


def recognise(folder: Path) -> Place | None:
    """Tell what kind of run a folder is, if it is one."""
    if folder.name == "progress" and (folder / "session.json").is_file():
        folder = folder.parent
    if (session := folder / "progress" / "session.json").is_file():
        return _place(folder, Kind.TRAINHOOKS, [session, *(folder / "progress").glob("*.jsonl")])
    states = [*folder.glob("trainer_state.json"), *folder.glob("checkpoint-*/trainer_state.json")]
    if states:
        if folder.name.startswith("checkpoint-") and len(states) == 1:
            folder = folder.parent
        return _place(folder, Kind.HUGGING_FACE, states)
    table = folder / "metrics.csv"
    if table.is_file():
        return _place(folder, Kind.LIGHTNING, [table])
    files = [file for file in folder.iterdir() if file.suffix in TORCH_SUFFIXES] if folder.is_dir() else []
    return _place(folder, Kind.TORCH, files) if files else None


def _place(root: Path, kind: Kind, files: list[Path]) -> Place:
    return Place(root=root, kind=kind, changed_at=max(map(_changed, files)))


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
