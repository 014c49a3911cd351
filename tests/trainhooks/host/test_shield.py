"""Loader workers live through the group's signals and never outlive the process that they load for."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

JOB = Path(__file__).parent / "jobs" / "loading.py"


def pids_of(path: Path) -> set[int]:
    return {int(line) for line in path.read_text().split()} if path.exists() else set()


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_workers_live_through_a_signal_to_the_group(zygote: Any, tmp_path: Path, number: signal.Signals) -> None:
    job = zygote.run(JOB, tmp_path / "pids", 4, "fork", output=tmp_path / "out")
    job.until(lambda: len(pids_of(tmp_path / "pids")) == 4)
    job.signal_group(number)
    assert job.wait() == 0, job.said()
    assert f"batches=2000 signals=[{number:d}]" in job.said()


def test_workers_are_shielded_from_their_first_instruction(zygote: Any, tmp_path: Path) -> None:
    """A storm of signals from before the first worker is forked until all of them load."""
    job = zygote.run(JOB, tmp_path / "pids", 4, "fork", output=tmp_path / "out")
    job.until((tmp_path / "pids.starting").exists)

    def is_loading() -> bool:
        job.signal_group(signal.SIGTERM)
        return len(pids_of(tmp_path / "pids")) == 4

    job.until(is_loading)
    assert job.wait() == 0, job.said()
    assert "batches=2000" in job.said()


@pytest.mark.faults
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_other_start_methods_are_shielded_too(zygote: Any, tmp_path: Path, method: str) -> None:
    job = zygote.run(JOB, tmp_path / "pids", 1, method, output=tmp_path / "out")
    job.until(lambda: len(pids_of(tmp_path / "pids")) == 1, 120)
    job.signal_group(signal.SIGTERM)
    assert job.wait(120) == 0, job.said()
    assert "batches=2000" in job.said()


def test_a_worker_that_hangs_does_not_hold_up_the_end(zygote: Any, tmp_path: Path) -> None:
    job = zygote.run(JOB, tmp_path / "pids", 1, "fork", "stuck", output=tmp_path / "out")
    assert job.wait(60) == 0, job.said()
    job.until(lambda: not any(is_running(pid) for pid in pids_of(tmp_path / "pids")), 10)


@pytest.mark.parametrize("how", ["loading", "stuck"])
def test_workers_die_with_the_main_process(zygote: Any, tmp_path: Path, how: str) -> None:
    job = zygote.run(JOB, tmp_path / "pids", 2, "fork", how, output=tmp_path / "out")
    job.until(lambda: len(pids_of(tmp_path / "pids")) == 2)
    os.kill(job.pid, signal.SIGKILL)
    assert job.wait() == -signal.SIGKILL
    job.until(lambda: not any(is_running(pid) for pid in pids_of(tmp_path / "pids")), 10)
