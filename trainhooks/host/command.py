"""One command as a child: in a process group of its own, with signals passed on and an end to its time."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

_PASSED_ON = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
_GRACE_SECONDS = 35.0
"""From asking a command to end to killing it: torchrun gives its workers 30 seconds."""
_LOOK_SECONDS = 0.02


class TimeIsUp(Exception):
    """The command ran longer than it may, and was ended."""


class Commands:
    """Starts commands one after the other, within one time limit.

    While one runs, signals of this process go to its process group; `signalled` then tells the last one.
    """

    def __init__(self, *, limit_seconds: float) -> None:
        self.signalled = 0
        self._ends_at = time.monotonic() + limit_seconds
        self._child: subprocess.Popen[bytes] | None = None

    def run(self, command: Sequence[str], environ: Mapping[str, str]) -> int:
        """Run a command to its end; returns its exit code, of one that a signal ended 128 + its number.

        What it prints goes to stderr.

        Raises:
            OSError: it cannot be started.
            TimeIsUp: it was ended, since the time limit came.
        """
        numbers = [getattr(signal, name) for name in _PASSED_ON if hasattr(signal, name)]
        before = {number: signal.signal(number, self._pass_on) for number in numbers}
        try:
            child = self._child = subprocess.Popen(  # noqa: S603 # the user's own command
                command, env={**os.environ, **environ}, stdout=sys.stderr.fileno(), start_new_session=True
            )
            if self.signalled:  # it came while the command was being started
                self._signal(self.signalled)
            is_in_time = self._ends(child, self._ends_at)
            if not is_in_time:
                self._signal(signal.SIGTERM)
                self._ends(child, time.monotonic() + _GRACE_SECONDS)
            self._signal(signal.SIGKILL)  # also loader workers of a process that killed itself
            code = child.wait()
            if not is_in_time:
                raise TimeIsUp
            return code if code >= 0 else 128 - code
        finally:
            self._child = None
            for number, handler in before.items():
                signal.signal(number, handler)

    def _ends(self, child: subprocess.Popen[bytes], at: float) -> bool:
        """Wait for a child's end and leave it there to be waited for: until then its number is nobody else's."""
        while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() >= at:
                return False
            time.sleep(_LOOK_SECONDS)
        return True

    def _pass_on(self, number: int, frame: FrameType | None) -> Any:
        self.signalled = number
        self._signal(number)

    def _signal(self, number: int) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._child.pid, number)
