"""Signals that ask a training to stop: recorded when they arrive, served between two steps.

A handler runs between any two bytecodes of the main thread, even inside a step or a save, so it only records the
signal; a thread logs what will happen and when time runs short.
"""

import logging
import os
import select
import signal
import socket
import threading
import time
import weakref
from types import FrameType
from typing import Any, NoReturn

from trainhooks.core import grace

log = logging.getLogger("trainhooks")

EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h, run it again: the exit code of a process that a signal stopped after a save."""
SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
"""Windows has no SIGUSR1."""

_REPEAT_SECONDS = 1.0
_REPEAT_SECONDS_TORCHRUN = 5.0
"""A process may get one signal twice: with its group, and from torchrun or timeout(1). A repeat within this time is
ignored."""
_DONE = b"\0"


class Preempted(SystemExit):
    """A signal stopped the training between two steps, after a save. The exit code is 75."""

    def __init__(self, number: int) -> None:
        super().__init__(EXIT_CODE)
        self.signal = signal.Signals(number)


class Preemption:
    """Handlers for SIGTERM, SIGUSR1 and SIGINT, from `install` to `close`. Earlier handlers are called, too.

    An exception of an earlier handler (such as SystemExit) is held back until `leave`. An ignored signal stays ignored.
    The same signal again, more than a second after the first, acts at once.

    Args:
        grace_seconds: time from a signal to the kill; by default from the environment of Slurm and torchrun.
    """

    def __init__(self, *, grace_seconds: float | None = None) -> None:
        self._grace_seconds = grace_seconds
        self._repeat_seconds = _REPEAT_SECONDS_TORCHRUN if "TORCHELASTIC_RUN_ID" in os.environ else _REPEAT_SECONDS
        self._earlier: dict[int, Any] = {}
        self._received: dict[int, float] = {}
        self._held: BaseException | None = None
        self._has_left = False
        self._is_waiting = False
        """Whether a signal waits for the end of a step; otherwise it acts at once."""
        self._pipe: tuple[socket.socket, socket.socket] | None = None
        """From the handler to the watcher. Sockets, because select() on Windows accepts nothing else."""
        self._watcher: threading.Thread | None = None

    @property
    def number(self) -> int:
        """The signal that arrived, 0 for none; of several the largest, so that SIGTERM outranks Ctrl-C."""
        return max(self._received, default=0)

    def install(self) -> None:
        """Install the handlers, also after `release`. Outside the main thread this only logs a warning."""
        if threading.current_thread() is not threading.main_thread():
            log.warning(
                "signals cannot be served: the training was opened outside the main thread. A preemption loses the"
                " steps since the last checkpoint"
            )
            return
        if self._pipe is None:
            self._pipe = socket.socketpair()
            self._watcher = threading.Thread(target=self._watch, args=(self._pipe[0],), name="trainhooks-signals")
            self._watcher.daemon = True
            self._watcher.start()
        self._is_waiting = True
        for number in SIGNALS:
            if number not in self._earlier and signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._earlier[number] = signal.signal(number, self._handle)
        _installed.add(self)

    def release(self) -> None:
        """Let signals act at once, because no step ends for now. A signal that has arrived still waits."""
        if not self._received:
            self._restore()

    def leave(self, number: int) -> NoReturn:
        """Exit, now that everything is saved. `number` is the signal of this process or of another rank.

        Raises:
            Preempted: for SIGTERM and SIGUSR1.
            KeyboardInterrupt: for SIGINT.
            BaseException: the exception of an earlier handler.
        """
        self._has_left = True
        self._tell_watcher()
        if self._held is not None:
            raise self._held
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise Preempted(number)

    def close(self, *, deliver: bool = False) -> None:
        """Restore the earlier handlers.

        Args:
            deliver: let a signal that arrived and was not served act now.
        """
        _installed.discard(self)
        self._restore()
        self._tell_watcher()
        if self._watcher is not None and self._pipe is not None:
            self._watcher.join()
            for end in self._pipe:
                end.close()
            self._pipe = self._watcher = None
        number = self.number
        self._received.clear()
        if deliver and number and not self._has_left:
            signal.raise_signal(signal.Signals(number))

    def forget(self) -> None:
        """In a forked child, restore the handlers: the child never reaches a safe point."""
        self._restore()
        self._pipe = self._watcher = None

    def _restore(self) -> None:
        self._is_waiting = False
        if threading.current_thread() is threading.main_thread():
            for number, earlier in list(self._earlier.items()):
                if signal.getsignal(number) == self._handle:
                    signal.signal(number, earlier)
                    del self._earlier[number]
                # otherwise a later handler stays, and may call ours

    def _handle(self, number: int, frame: FrameType | None) -> None:
        earlier = self._earlier[number]
        if not self._is_waiting:  # called by a handler installed after ours
            if callable(earlier):
                earlier(number, frame)
            else:
                _act_at_once(number)
            return
        now = time.monotonic()
        if now - self._received.get(number, now) > self._repeat_seconds:
            _act_at_once(number)
            return
        self._received.setdefault(number, now)
        if self._pipe is not None:
            self._pipe[1].send(bytes([number]))
        if callable(earlier) and earlier is not signal.default_int_handler:
            try:
                earlier(number, frame)
            except BaseException as error:
                self._held = error

    def _tell_watcher(self) -> None:
        if self._pipe is not None:
            self._pipe[1].send(_DONE)

    def _watch(self, pipe: socket.socket) -> None:
        """Log each signal, and when time runs short. Ends when the signal is served."""
        kill_at: float | None = None
        said: set[int] = set()
        while True:
            timeout = None if kill_at is None else max(0.0, kill_at - time.monotonic())
            if not select.select([pipe], [], [], timeout)[0]:
                log.error(
                    "no step has ended since the signal, and this process is likely to be killed soon: the next"
                    " attempt then resumes from the last checkpoint"
                )
                kill_at = None
                continue
            news = pipe.recv(1)
            if news == _DONE:
                return
            number = news[0]
            if number in said:
                continue
            said.add(number)
            log.warning(
                "%s: the training saves and stops when this step ends; the same signal again ends it at once",
                signal.Signals(number).name,
            )
            left = grace.seconds_left(number, os.environ, now=time.time(), given=self._grace_seconds)
            if left is not None:
                kill_at = min(kill_at or float("inf"), time.monotonic() + 0.8 * left)


def _act_at_once(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


_installed: weakref.WeakSet[Preemption] = weakref.WeakSet()


class _Mask(threading.local):
    before: set[Any] | None = None


_mask = _Mask()


def _before_fork() -> None:
    # CPython drops signals that reach the child before its handlers are restored (_clear_pending_signals).
    if _installed:
        _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def _after_fork() -> None:
    if _mask.before is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)
        _mask.before = None


def _after_fork_in_child() -> None:
    for each in list(_installed):
        each.forget()
    _installed.clear()
    _after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
