"""Which source code and which environment an attempt ran with."""

import hashlib
import platform
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from trainhooks.core import credentials

_GIT_SECONDS = 5.0
_LIBRARIES = ("numpy", "safetensors", "torch", "transformers")


def code() -> dict[str, str | bool]:
    """Return the commit of the running script, and whether the code differs from it; empty without git.

    Untracked files are ignored.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    folder = Path.cwd() if script is None else Path(script).resolve().parent
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    facts: dict[str, str | bool] = {"code.commit": commit.decode().strip()}
    diff = _git(folder, "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-color")
    if diff is not None:
        facts |= {"code.is_dirty": bool(diff), "code.diff_sha256": hashlib.sha256(diff).hexdigest()}
    remote = _git(folder, "remote", "get-url", "origin")
    if remote is not None:
        facts["code.remote"] = credentials.without(remote.decode().strip())
    return facts


def environment() -> dict[str, str]:
    """Return the versions of Python, machine and libraries; nothing is imported."""
    facts = {
        "environment.python": platform.python_version(),
        "environment.machine": f"{platform.system()} {platform.machine()}",
        "environment.host": socket.gethostname(),
    }
    for name in _LIBRARIES:
        try:
            facts[f"environment.{name}"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return facts


def _git(folder: Path, *arguments: str) -> bytes | None:
    # No hook, monitor or lock of the repository: the query changes nothing and runs nothing else.
    command = ["git", "--no-optional-locks", "-c", "core.fsmonitor=false", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_GIT_SECONDS, check=False, stdin=subprocess.DEVNULL)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
