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
"""Searched in this order if no database is named."""


def locate(database: str | os.PathLike[str] | bool, output_dir: Path) -> Path | None:
    """Return the database that an argument means: a file, `WORKSPACE/experiments.db` (True), or none (False)."""
    if isinstance(database, bool):
        return workspace(output_dir) / DATABASE if database else None
    return in_folder(Path(database).expanduser())


def in_folder(path: Path) -> Path:
    """Return the database of a folder, or the file itself."""
    return path / DATABASE if path.is_dir() else path


def usual() -> Path:
    """Return the first database in the usual places, or the path of a new one."""
    places = [Path(folder) / DATABASE for folder in _USUAL]
    return next((place for place in places if place.is_file()), places[0])


def all_usual() -> list[Path]:
    """Return the databases in the usual places."""
    return [place for folder in _USUAL if (place := Path(folder) / DATABASE).is_file()]


def workspace(output_dir: Path) -> Path:
    """Return the parent of a run's folder, `runs` for `runs/a`: the place of files that several runs share.

    It is the run's own folder if the parent is unsuitable: if the run's folder is the working directory or above it, or
    a mount, or if the parent is the root of the file system, a shared folder (`/tmp`), or not writable.
    """
    own = Path(os.path.abspath(output_dir))  # noqa: PTH100 - not resolved: as the user sees it
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
