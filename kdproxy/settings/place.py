"""Where the data lies unless somebody says: in one place for every working directory, outside any checkout.

`git clean -xdf` deletes ignored files, and what lies below one working directory is bought again from the next one. So
the default is `~/kdproxy-data`; a `./kdproxy-data`, the default of earlier releases, is used where there is one.
"""

from pathlib import Path

NAME = "kdproxy-data"


def usual_data_directory() -> Path:
    """Return `kdproxy-data` of the working directory if there is one, else that of the home directory."""
    here = Path(NAME)
    try:
        return here if here.is_dir() else Path.home() / NAME
    except RuntimeError:  # a user without a home (a container's)
        return here


def checkout_of(path: Path) -> Path | None:
    """Return the git checkout that holds `path`, whose `git clean -xdf` would delete it; a home kept in git is none."""
    try:
        home = Path.home()
    except RuntimeError:
        home = None
    for folder in path.expanduser().absolute().parents:
        if (folder / ".git").exists():
            return None if folder == home else folder
    return None
