"""Loader workers survive signals that a scheduler or a terminal sends to the whole process group.

After such a signal the main process finishes its step and saves, which fails once a worker is gone. So workers start
with the signals blocked (the mask is inherited, also through exec) and keep them blocked. A SIGTERM from the main
process itself still ends them, because that is how torch and multiprocessing stop a worker that hangs; and they exit
when the main process is gone.
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker

SHIELDED = frozenset(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name))
_POLL_SECONDS = 1.0


@contextmanager
def starting_workers(start_method: str | None) -> Iterator[None]:
    """Start processes in this block: they are born shielded. Signals to this process wait for the end of the block.

    Args:
        start_method: multiprocessing's. All but fork start a resource tracker first, which would lift the mask
            (CPython's resource_tracker.ensure_running, 3.11), so it is started before.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows has no such signals
        yield
        return
    if start_method != "fork":
        resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _shielded())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerInit:
    """A `worker_init_fn` that keeps the shield up and watches the main process. Made in the main process.

    Args:
        then: the user's own `worker_init_fn`.
    """

    def __init__(self, then: Callable[[int], None] | None = None) -> None:
        self._then = then
        self._main = os.getpid()

    def __call__(self, worker_id: int) -> None:
        """Run first in the worker."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _shielded())  # a fork server has the mask of its start
        threading.Thread(target=_watch, args=(self._main,), name="trainhooks-shield", daemon=True).start()
        if self._then is not None:
            self._then(worker_id)


def _shielded() -> frozenset[signal.Signals]:
    # Without sigtimedwait (macOS) the SIGTERM of the main process looks like that of the group.
    return SHIELDED if hasattr(signal, "sigtimedwait") else SHIELDED - {signal.SIGTERM}


def _watch(main: int) -> None:
    is_child = os.getppid() == main
    while (os.getppid() == main if is_child else _is_alive_behind_a_fork_server()) and not _is_dismissed(main):
        pass
    os._exit(0)  # as torch's own handler does: any other code reads as a worker that failed


def _is_alive_behind_a_fork_server() -> bool:
    parent = multiprocessing.parent_process()
    return parent is not None and parent.is_alive()


def _is_dismissed(main: int) -> bool:
    """Wait briefly; return whether the main process sent SIGTERM. One from any other process is dropped."""
    if not hasattr(signal, "sigtimedwait"):
        threading.Event().wait(_POLL_SECONDS)
        return False
    info = signal.sigtimedwait({signal.SIGTERM}, _POLL_SECONDS)
    return info is not None and info.si_pid == main
