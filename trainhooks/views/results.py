"""Files about a run: in `WORKSPACE/results/`, named after it, each replaced atomically."""

import os
import re
from pathlib import Path

_NOT_IN_A_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST = 120
"""Characters; file systems allow 255 bytes, including what is added."""


def place(workspace_root: str | os.PathLike[str] | None, run_name: str | None, ending: str) -> Path:
    """Return the path of a file about a run; characters that do not suit a file name are replaced. Writes nothing."""
    name = _NOT_IN_A_NAME.sub("_", run_name or "training_run").strip("._")[:_LONGEST] or "training_run"
    return Path(workspace_root or ".") / "results" / f"{name}_{ending}"


def write(path: Path, content: bytes) -> None:
    """Replace `path` atomically, so that a concurrent reader sees a whole file. Creates its folder.

    Raises:
        OSError: the path cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")  # two processes may draw one run
    try:
        scratch.write_bytes(content)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
