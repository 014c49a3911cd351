"""Whether a run of the experiment database still runs: a killed process records no end."""

import contextlib
import os
import socket
import time
from pathlib import Path

from trainhooks.core.experiment import INTERRUPTED, RUNNING, Run, sessions_of
from trainhooks.errors import SessionInvalid
from trainhooks.storage import lock, session

HEARTBEAT_SECONDS = 60.0
"""A running session writes to the database at least this often."""
_SILENT_SECONDS = 5 * HEARTBEAT_SECONDS


def state(run: Run) -> str | None:
    """Return `running`, `interrupted`, or how the last session ended; None for a run that has no sessions.

    The lock in the run's directory decides. If it is out of reach, the process or the last heartbeat decides; so it
    does if another host held the lock, which a network file system may not show.
    """
    if not run.sessions:
        return None
    last = run.sessions[-1]
    if last.status != RUNNING:
        return last.status
    directory = Path(run.directory) / "progress"
    is_held = _is_held(directory)
    if is_held:
        return RUNNING
    if last.host == socket.gethostname():
        if is_held is None:
            return RUNNING if _is_process(last.pid) else INTERRUPTED
        return _end(directory, last.attempt)
    return RUNNING if time.time() - (last.seen_at or 0.0) < _SILENT_SECONDS else INTERRUPTED


def _is_held(directory: Path) -> bool | None:
    """Return whether a process writes there; None if unknown."""
    with contextlib.suppress(OSError):
        if (directory / lock.NAME).exists():
            return lock.holder(directory) is not None
    return None


def _end(directory: Path, attempt: int) -> str:
    """Return how an attempt ended, which its directory may record although the database does not."""
    with contextlib.suppress(OSError, SessionInvalid):
        members = session.read(directory / session.NAME) or {"attempts": ()}
        for each in sessions_of(members["attempts"], running=None):
            if each.attempt == attempt and each.status is not None:
                return each.status
    return INTERRUPTED


def _is_process(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        return True
    return True
