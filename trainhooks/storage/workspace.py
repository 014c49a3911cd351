"""Where the experiment database of a run is."""

import os
import stat
from pathlib import Path

DATABASE = "experiments.db"
_USUAL = (
    ".",
    "runs",
    "output",
    "outputs",
    "training_output",
    "/content",
    "/content/workspace",
    "/content/drive/MyDrive",
)
"""Looked at in this order where no database is named."""


def locate(database: str | os.PathLike[str] | bool, output_dir: Path) -> Path | None:
    """Return the database that an argument means: a file, `WORKSPACE/experiments.db` (True), or none (False)."""
    if isinstance(database, bool):
        return workspace(output_dir) / DATABASE if database else None
    return in_folder(Path(database).expanduser())


def in_folder(path: Path) -> Path:
    """Return the database of a folder, or the file itself."""
    return path / DATABASE if path.is_dir() else path


def usual() -> Path:
    """Return the first database of the places where runs usually are, or where the first one would be."""
    places = [Path(folder) / DATABASE for folder in _USUAL]
    return next((place for place in places if place.is_file()), places[0])


def all_usual() -> list[Path]:
    """Return the databases of the places where runs usually are."""
    return [place for folder in _USUAL if (place := Path(folder) / DATABASE).is_file()]


def workspace(output_dir: Path) -> Path:
    """Return the folder that a run's folder lies in, `runs` of `runs/a`: where what several runs share is kept.

    It is the run's own folder where the one above is not for such things: where the run's folder is the working
    directory or above it, is mounted, or lies in the root of the file system, in a place that everybody shares
    (`/tmp`), or in one that cannot be written to.
    """
    own = Path(os.path.abspath(output_dir))  # noqa: PTH100 - not resolved: where the user sees it
    above = own.parent
    try:
        found = above.stat()
        is_mounted = own.exists() and own.stat().st_dev != found.st_dev
        is_above_work = Path.cwd().is_relative_to(own)
    except OSError:
        return own
    is_shared = bool(found.st_mode & stat.S_ISVTX)
    if above == above.parent or is_mounted or is_shared or is_above_work or not os.access(above, os.W_OK):
        return own
    return above
