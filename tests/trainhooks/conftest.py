"""What the tests of trainhooks share: new processes in 20 ms, from a zygote that has torch imported."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ZYGOTE = Path(__file__).with_name("zygote.py")


@dataclass
class Job:
    """One running script, the leader of its own process group."""

    zygote: "Zygote"
    pid: int
    output: Path
    code: int | None = None

    def poll(self) -> int | None:
        """Return its exit code once it has ended; negative: the signal that ended it."""
        if self.code is None:
            self.code = self.zygote.ask(poll=self.pid)["code"]
        return self.code

    def wait(self, seconds: float = 60) -> int:
        """Wait for its end."""
        self.until(lambda: self.poll() is not None, seconds)
        assert self.code is not None
        return self.code

    def until(self, is_met: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until a condition holds."""
        end = time.monotonic() + seconds
        while not is_met():
            assert time.monotonic() < end, f"not within {seconds} s; it said:\n{self.said()}"
            time.sleep(0.005)

    def said(self) -> str:
        """Return what it has printed."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the whole process group, as schedulers and terminals do."""
        os.killpg(self.pid, number)


class Zygote:
    """The process that scripts are forked from.

    Args:
        modules: what it imports beside torch.
    """

    def __init__(self, *modules: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(ZYGOTE), *modules], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._jobs: list[Job] = []

    def ask(self, **request: Any) -> Any:
        """Send a request and return the answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def run(self, script: Path, *argv: object, output: Path, env: dict[str, str] | None = None) -> Job:
        """Start a script."""
        answer = self.ask(run=str(script), argv=[str(each) for each in argv], output=str(output), env=env or {})
        job = Job(zygote=self, pid=answer["pid"], output=output)
        self._jobs.append(job)
        return job

    def end_jobs(self) -> None:
        """Kill what a test has left running."""
        for job in self._jobs:
            if job.poll() is None:
                os.killpg(job.pid, signal.SIGKILL)
                job.wait()
        self._jobs.clear()

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=10)


@pytest.fixture(scope="session")
def _zygote() -> Iterator[Zygote]:
    running = Zygote()
    yield running
    running.close()


@pytest.fixture(scope="session")
def zygote_with() -> Iterator[Callable[..., Zygote]]:
    """Make a zygote that has more imported: `zygote_with("transformers")`. Call it in a fixture of your module."""
    made: list[Zygote] = []

    def make(*modules: str) -> Zygote:
        made.append(Zygote(*modules))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def zygote(_zygote: Zygote) -> Iterator[Zygote]:
    """Run scripts as new processes: `zygote.run(script, *argv, output=file)`; what still runs at the end is killed."""
    yield _zygote
    _zygote.end_jobs()
