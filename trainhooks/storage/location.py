"""Paths that a user gives, checked before anything is searched or created there."""

import os
from pathlib import Path
from typing import Any

from trainhooks.core.argument import wrong


def path(name: str, value: Any) -> Path:
    """Return the name of a file or folder.

    Raises:
        ConfigInvalid: it is none.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text:
        raise wrong(name, value, "a path, as text or a pathlib.Path")
    if "\0" in text:
        raise wrong(name, value, "a path without a NUL character")
    return Path(text)


def flag_or_path(name: str, value: Any) -> None:
    """Refuse what is neither True, False nor a path.

    Raises:
        ConfigInvalid: it is none of them.
    """
    if not isinstance(value, bool):
        path(name, value)


def directory(value: Any) -> Path:
    """Return the absolute output directory.

    Raises:
        ConfigInvalid: it is no path.
    """
    return path("output_dir", value).expanduser().absolute()
