"""session.json: the identity of a training, its configuration and attempts. docs/formats/session.md."""

import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainhooks.core.config import fingerprint
from trainhooks.errors import SessionInvalid
from trainhooks.storage import atomic

NAME = "session.json"
SESSION_VERSION = 1


class SessionFile:
    """The file while an attempt runs: read once, replaced whole whenever something changes.

    Raises:
        SessionInvalid: it is damaged or of a newer version.
    """

    def __init__(self, path: Path, config: Mapping[str, Any], total_steps: int) -> None:
        self._path = path
        self.previous = read(path)
        """The content after the last attempt, or None for a new session."""
        self.members: dict[str, Any] = self.previous or {
            "v": SESSION_VERSION,
            "session_id": os.urandom(8).hex(),
            "created_at": time.time(),
        }
        self.members = {
            **self.members,
            "total_steps": total_steps,
            "config": dict(config),
            "config_sha256": fingerprint(config),
            "attempts": list(self.members.get("attempts", [])),
        }

    @property
    def session_id(self) -> str:
        """Stable over all attempts."""
        return str(self.members["session_id"])

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """All attempts, the running one last."""
        attempts: list[dict[str, Any]] = self.members["attempts"]
        return attempts

    def begin(self, *, at_least: int) -> int:
        """Add an attempt and return its number, from 1 on and not below `at_least`."""
        number: int = max([at_least, *(attempt["attempt"] + 1 for attempt in self.attempts)])
        self.attempts.append(
            {"attempt": number, "started_at": time.time(), "pid": os.getpid(), "host": socket.gethostname()}
        )
        return number

    def write(self) -> None:
        """Replace the file, durably."""
        atomic.write(self._path, json.dumps(self.members, indent=1).encode() + b"\n")


def read(path: Path) -> dict[str, Any] | None:
    """Return the content of a session file, or None if it does not exist.

    Raises:
        SessionInvalid: damaged, or of a newer version.
    """
    try:
        members = json.loads(path.read_bytes())
        version, attempts = members["v"], members["attempts"]
        if version == SESSION_VERSION and isinstance(members["session_id"], str):
            return {**members, "attempts": [{**each, "attempt": int(each["attempt"])} for each in attempts]}
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise SessionInvalid(
            f"{path} is damaged ({type(error).__name__}: {error}).",
            hint="Metrics and checkpoints are unaffected. Restore it from a backup, or move it away: the training then"
            " resumes from the newest checkpoint under a new session id.",
        ) from error
    raise SessionInvalid(
        f"{path} has version {version!r}; this release reads version {SESSION_VERSION}.",
        hint="It was written by a newer trainhooks: upgrade to resume.",
    )
