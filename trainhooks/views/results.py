"""Files about a run: in `WORKSPACE/results/`, named after it, each either as before or as after."""

import os
import re
from pathlib import Path

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 120
"""Characters; file systems take 255 bytes with what is added to it."""


def place(workspace_root: str | os.PathLike[str] | None, run_name: str | None, ending: str) -> Path:
    """Return the path of a file about a run; a name that is no file name is made one. Nothing is written."""
    name = _NOT_IN_A_NAME.sub("_", run_name or "training_run").strip("._")[:_LONGEST] or "training_run"
    return Path(workspace_root or ".") / "results" / f"{name}_{ending}"


def write(path: Path, content: bytes) -> None:
    """Replace `path` in one step, so that who looks meanwhile sees a whole file. Its folder is made.

    Raises:
        OSError: the place cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")  # two may follow one run
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
