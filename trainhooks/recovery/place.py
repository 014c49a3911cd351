"""The usual places of runs, and which kind of run a folder holds."""

import errno
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

COLAB = Path("/content")
"""Where Colab keeps files; Google Drive is mounted in `drive/`."""
_DRIVE = "drive"
_USUAL = (
    "training_output/checkpoints",
    "training_output",
    "tmp_training_output/checkpoints",
    "tmp_training_output",
    "checkpoints",
    "output",
    "outputs",
    "runs",
    "lightning_logs",
    ".",
)

_TORCH_SUFFIXES = (".pt", ".pth", ".ckpt", ".pth.tar", ".pt.tar")
SEARCH_SECONDS = 15.0
"""Time limit of a search; folders that it did not reach are reported."""
_PARTS = frozenset({"checkpoints", "ckpt", "weights"})
_MOUNT_GONE = frozenset({errno.ENOTCONN, errno.ESTALE, errno.EIO, errno.ENODEV, errno.ENXIO})


class Kind(StrEnum):
    """Who wrote a run."""

    TRAINHOOKS = "trainhooks"
    HUGGING_FACE = "Hugging Face Trainer"
    LIGHTNING = "Lightning"
    TORCH = "torch checkpoints"
    SHARDED = "checkpoints of several processes (DeepSpeed, FSDP)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A folder that holds a run."""

    root: Path
    """The run's own folder: what `output_dir` was."""
    kind: Kind
    changed_at: float
    """UTC Unix seconds of the newest of its files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PassedOver:
    """A place that was searched and skipped."""

    path: Path
    reason: str


def usual() -> list[tuple[Path, int]]:
    """Return the usual places, each with the levels of folders below it to search."""
    here = [(Path(folder), 1) for folder in _USUAL]
    if not _is_folder(COLAB):
        return here
    workspace, drive = COLAB / "workspace", COLAB / _DRIVE
    shared = [(drive / "Shareddrives", 2)] if _is_folder(drive / "Shareddrives") else []
    return [(workspace / "checkpoints", 1), (workspace, 1), *here, (drive / "MyDrive", 2), *shared]


def look(folders: Sequence[tuple[Path, int]]) -> tuple[list[Place], list[PassedOver]]:
    """Return the runs in folders, beside them and below them, each once, newest first; and what was skipped.

    A run's own folder of checkpoints comes after all runs: it is used only if the rest of its run is damaged.
    """
    until = time.monotonic() + SEARCH_SECONDS
    places: dict[Path, Place] = {}
    passed: list[PassedOver] = []
    for folder, levels in folders:
        has_run = False
        try:
            os.scandir(folder).close()
            for each in _around(folder, levels, until, passed):
                try:
                    place = recognise(each)
                except OSError as error:
                    passed.append(PassedOver(path=each, reason=reason(each, error)))
                    continue
                if place is not None:
                    has_run = True
                    places.setdefault(place.root.resolve(), place)
        except (OSError, ValueError) as error:
            passed.append(PassedOver(path=folder, reason=reason(folder, error)))
            continue
        if not has_run:
            passed.append(PassedOver(path=folder, reason="it holds no run"))
    parts = {root for root in places if root.name in _PARTS and root.parent in places}
    found = [place for root, place in places.items() if root not in parts]
    found.sort(key=lambda place: place.changed_at, reverse=True)
    return [*found, *(places[root] for root in parts)], passed


def reason(path: Path, error: Exception) -> str:
    """Say in half a sentence why a place cannot be searched."""
    drive = COLAB / _DRIVE
    is_drive = path.is_relative_to(drive)
    number = error.errno if isinstance(error, OSError) else None
    if number in _MOUNT_GONE:
        again = f": run drive.mount({str(drive)!r}, force_remount=True)" if is_drive else ": mount it again"
        return f"its mount is gone ({os.strerror(number or 0)}){again}"
    if isinstance(error, FileNotFoundError):
        return f"Google Drive is not mounted: run drive.mount({str(drive)!r})" if is_drive else "it does not exist"
    if isinstance(error, NotADirectoryError):
        return "it is a file: name its folder"
    if isinstance(error, PermissionError):
        return "permission denied"
    return f"it cannot be read ({os.strerror(number) if number is not None else error})"


def _around(path: Path, levels: int, until: float, passed: list[PassedOver]) -> Iterator[Path]:
    """Yield a folder, its parent where it is a part of a run, and the folders below it, newest first."""
    yield path
    if (whole := path.resolve()).name in {"checkpoints", "progress"}:
        yield whole.parent
    try:
        with os.scandir(path) as found:
            children = [Path(entry.path) for entry in found if _is_folder(entry)]
    except OSError as error:
        passed.append(PassedOver(path=path, reason=reason(path, error)))
        return
    children.sort(key=changed_at, reverse=True)
    for number, child in enumerate(children):
        if time.monotonic() > until:
            left = len(children) - number
            passed.append(
                PassedOver(
                    path=path,
                    reason=f"{left:,} of its {len(children):,} folders were not searched within the time limit",
                )
            )
            return
        if levels > 1:
            yield from _around(child, levels - 1, until, passed)
        else:
            yield child
        if child.name == "lightning_logs":
            yield from filter(_is_folder, child.iterdir())


def recognise(folder: Path) -> Place | None:
    """Return which run a folder holds, if any.

    Raises:
        OSError: it cannot be read.
    """
    if folder.name == "progress" and _ours(folder.parent):
        folder = folder.parent
    if ours := _ours(folder):
        return _place(folder, Kind.TRAINHOOKS, ours)
    states = [*folder.glob("trainer_state.json"), *folder.glob("checkpoint-*/trainer_state.json")]
    if states:
        if folder.name.startswith("checkpoint-") and len(states) == 1:
            folder = folder.parent
        return _place(folder, Kind.HUGGING_FACE, states)
    table = folder / "metrics.csv"
    if table.is_file():
        return _place(folder, Kind.LIGHTNING, [table])
    if parts := _sharded(folder):
        return _place(folder.parent if folder in parts else folder, Kind.SHARDED, parts)
    with os.scandir(folder) as found:
        files = [Path(entry.path) for entry in found if is_torch_file(entry.name)]
    return _place(folder, Kind.TORCH, files) if files else None


def is_torch_file(name: str) -> bool:
    """Whether a file has a suffix that is usual for `torch.save`."""
    return name.endswith(_TORCH_SUFFIXES)


def stem_of(name: str) -> str:
    """Return a file's name without the suffix of a torch file; any other name unchanged."""
    suffixes = sorted(_TORCH_SUFFIXES, key=len, reverse=True)
    return next((name.removesuffix(suffix) for suffix in suffixes if name.endswith(suffix)), name)


def _sharded(folder: Path) -> list[Path]:
    """Return what DeepSpeed or torch's distributed checkpoint wrote at a folder or directly below it."""
    found = [*folder.glob("*.distcp"), *folder.glob("*_model_states.pt")]
    return (
        [folder]
        if found
        else [each.parent for each in folder.glob("*/*.distcp")]
        + [each.parent for each in folder.glob("global_step*/*_states.pt")]
    )


def _ours(folder: Path) -> list[Path]:
    """Return the files that identify a run of ours; any one of them suffices."""
    progress = folder / "progress"
    found = [each for each in (progress / "session.json", progress / "metrics.jsonl") if each.is_file()]
    return found or list(folder.glob("checkpoints/step-*/manifest.json"))


def _place(root: Path, kind: Kind, files: list[Path]) -> Place:
    return Place(root=root, kind=kind, changed_at=max(map(changed_at, files)))


def changed_at(path: Path) -> float:
    """Return the modification time of a file, UTC Unix seconds; 0 if unknown."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _is_folder(entry: "Path | os.DirEntry[str]") -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
