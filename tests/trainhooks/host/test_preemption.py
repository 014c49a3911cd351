"""Signals are noted when they come and act when the loop is ready. Real signals, to this process or to a real one."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from trainhooks.host import preemption
from trainhooks.host.preemption import EXIT_CODE, SIGNALS, Preempted, Preemption

Until = Callable[[Callable[[], bool]], None]


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    after = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == before, "handlers were not given back"


@contextmanager
def installed(grace_seconds: float | None = None) -> Iterator[Preemption]:
    watched = Preemption(grace_seconds=grace_seconds)
    watched.install()
    try:
        yield watched
    finally:
        watched.close()


def until(is_met: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not is_met():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_noted_and_leaves_with_the_code_for_running_again(number: signal.Signals) -> None:
    with installed() as watched:
        assert watched.number == 0
        signal.raise_signal(number)
        assert watched.number == number
        with pytest.raises(Preempted) as left:
            watched.leave(watched.number)
    assert (left.value.code, left.value.signal) == (EXIT_CODE, number)
    assert EXIT_CODE == 75


def test_a_handler_that_was_set_since_and_calls_ours_counts_once_in_every_loop() -> None:
    got: list[str] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: got.append("first"))
    with installed() as watched:
        ours = signal.getsignal(signal.SIGUSR1)
        assert callable(ours)

        def later(number: int, frame: Any) -> None:
            got.append("later")
            ours(number, frame)

        signal.signal(signal.SIGUSR1, later)
        watched.release()
        signal.raise_signal(signal.SIGUSR1)
        assert (got, watched.number) == (["later", "first"], 0)
        watched.install()
        signal.raise_signal(signal.SIGUSR1)
        assert (got, watched.number) == (["later", "first"] * 2, signal.SIGUSR1)
    assert signal.signal(signal.SIGUSR1, before) is later


def test_ctrl_c_becomes_a_keyboard_interrupt_when_it_is_served() -> None:
    with installed() as watched:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            watched.leave(watched.number)


def test_an_earlier_handler_is_called() -> None:
    got: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
    with installed() as watched:
        signal.raise_signal(signal.SIGUSR1)
        assert got == [signal.SIGUSR1]
        assert watched.number == signal.SIGUSR1
    signal.raise_signal(signal.SIGUSR1)
    assert got == [signal.SIGUSR1] * 2, "it has its signal back"
    signal.signal(signal.SIGUSR1, before)


def test_what_an_earlier_handler_raises_waits_for_the_save() -> None:
    def leave(number: int, frame: object) -> None:
        raise SystemExit(3)

    before = signal.signal(signal.SIGTERM, leave)
    with installed() as watched:
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as left:
            watched.leave(watched.number)
    assert left.value.code == 3
    signal.signal(signal.SIGTERM, before)


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with installed() as watched:
        signal.raise_signal(signal.SIGINT)
        assert watched.number == 0
    signal.signal(signal.SIGINT, before)


def test_the_same_signal_twice_at_once_is_one_notice() -> None:
    with installed() as watched:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
        assert watched.number == signal.SIGINT


def test_a_second_ctrl_c_acts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "_REPEAT_SECONDS", 0.0)
    with installed():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_another_signal_is_no_second_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm's --signal=USR1 is followed by its SIGTERM: the save under way goes on."""
    monkeypatch.setattr(preemption, "_REPEAT_SECONDS", 0.0)
    with installed() as watched:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGTERM)
        assert watched.number == signal.SIGTERM


def test_a_second_sigterm_ends_the_process() -> None:
    script = (
        "import signal, time\n"
        "from trainhooks.host import preemption\n"
        "preemption._REPEAT_SECONDS = 0.0\n"
        "preemption.Preemption().install()\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "print('still here', flush=True)\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "print('and here')\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (-signal.SIGTERM, "still here\n")


def test_a_signal_that_nobody_served_acts_when_the_training_is_closed() -> None:
    watched = Preemption()
    watched.install()
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        watched.close(deliver=True)


def test_time_that_gets_short_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="trainhooks"), installed(grace_seconds=0.05):
        signal.raise_signal(signal.SIGTERM)
        until(lambda: "likely to be killed" in caplog.text)
    assert "SIGTERM: the training saves and stops" in caplog.text


def test_what_is_served_in_time_is_not_reported_as_late(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="trainhooks"):
        with installed(grace_seconds=0.5) as watched:
            signal.raise_signal(signal.SIGTERM)
            until(lambda: "SIGTERM" in caplog.text)
            with pytest.raises(Preempted):
                watched.leave(watched.number)
            watcher = watched._watcher
            assert watcher is not None
            watcher.join(10)
            assert not watcher.is_alive()
        assert "likely to be killed" not in caplog.text


def test_outside_the_main_thread_it_is_reported_and_training_continues(caplog: pytest.LogCaptureFixture) -> None:
    def open_and_close() -> None:
        with installed() as watched:
            assert watched.number == 0

    thread = threading.Thread(target=open_and_close)
    with caplog.at_level(logging.WARNING, logger="trainhooks"):
        thread.start()
        thread.join()
    assert "outside the main thread" in caplog.text


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_is_ended_by_sigterm_as_ever() -> None:
    with installed() as watched:
        for _ in range(20):  # however early it comes
            child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
            child.start()
            child.terminate()
            child.join(20)
            assert child.exitcode == -signal.SIGTERM
        os.kill(os.getpid(), signal.SIGUSR1)
        assert watched.number == signal.SIGUSR1, "and here nothing has changed"


def test_released_it_acts_at_once_and_taken_again_it_waits() -> None:
    before = signal.getsignal(signal.SIGINT)
    with installed() as watched:
        watched.release()
        assert signal.getsignal(signal.SIGINT) is before
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        watched.install()
        signal.raise_signal(signal.SIGINT)
        assert watched.number == signal.SIGINT


def test_what_has_come_is_still_to_be_served_though_no_step_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun hands on the signal that its group got, too: the second one must not end a save after the loop."""
    with installed() as watched:
        signal.raise_signal(signal.SIGTERM)
        watched.release()
        signal.raise_signal(signal.SIGTERM)
        assert watched.number == signal.SIGTERM
