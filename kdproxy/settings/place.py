"""The default data directory: one for all working directories, outside any checkout.

`git clean -xdf` deletes ignored files, and answers stored below one working directory would be bought again from
another. So the default is `~/kdproxy-data`; an existing `./kdproxy-data`, the default of earlier releases, is used.
"""

from pathlib import Path

NAME = "kdproxy-data"


def usual_data_directory() -> Path:
    """Return `kdproxy-data` of the working directory if it exists, else that of the home directory."""
    here = Path(NAME)
    try:
        return here if here.is_dir() else Path.home() / NAME
    except RuntimeError:  # a user without a home (a container's)
        return here


def checkout_of(path: Path) -> Path | None:
    """Return the git checkout that holds `path`, whose `git clean -xdf` would delete it; not a home in git."""
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    for folder in path.expanduser().absolute().parents:
        if (folder / ".git").exists():
            return None if folder == home else folder
    return None
