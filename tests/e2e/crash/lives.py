"""Starts `kdproxy serve` with a plan, and knows how it ended."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kdproxy.storage.lock import read_owner
from tests.e2e.crash.points import Plan

SECONDS = 30.0
ROOT = Path(__file__).resolve().parents[3]


@dataclass(slots=True)
class Life:
    """One process of `kdproxy serve`."""

    forks: "Forks"
    pid: int
    data_dir: Path
    output: Path
    hits: Path
    address: str = ""
    code: int | None = None
    """Its exit code; None: it runs."""

    @property
    def is_over(self) -> bool:
        if self.code is None:
            self.code = self.forks.request({"poll": self.pid})["code"]
        return self.code is not None

    async def listening(self) -> bool:
        """Wait until it listens; False: it ended before."""
        async with asyncio.timeout(SECONDS):
            while not self.is_over:
                owner = read_owner(self.data_dir)
                if owner is not None and owner.pid == self.pid and owner.address is not None:
                    self.address = owner.address
                    return True
                await asyncio.sleep(0.005)
        return False

    async def ended(self) -> int:
        async with asyncio.timeout(SECONDS):
            while not self.is_over:
                await asyncio.sleep(0.005)
        assert self.code is not None
        return self.code

    def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if not self.is_over:
            os.kill(self.pid, how)

    def said(self) -> str:
        return self.output.read_text()

    def cut_power(self) -> None:
        """Cut off each log what no sync had made durable when the process died."""
        _, killed, synced = self.reached()
        for file in self.data_dir.glob("*.jsonl") if killed is not None else ():
            durable = synced.get(str(file.stat().st_ino), 0)
            if file.stat().st_size > durable:
                os.truncate(file, durable)

    def reached(self) -> tuple[set[str], str | None, dict[str, int]]:
        """Return the points seen, the one at which it died or failed, and the synced size of each file then."""
        seen, killed, synced = set(), None, {}
        if self.hits.exists():
            lines = self.hits.read_text().splitlines()
            for number, line in enumerate(lines):
                if line.startswith("killed "):
                    killed, synced = line.removeprefix("killed "), json.loads(lines[number + 1])
                elif not line.startswith("{"):
                    seen.add(line)
        return seen, killed, synced


class Forks:
    """The process that forks lives."""

    def __init__(self, process: "subprocess.Popen[str]", place: Path) -> None:
        self._process = process
        self._place = place
        self._number = 0
        self.latest: Life | None = None

    def request(self, request: dict[str, Any]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def start(self, url: str, data_dir: Path, *, is_armed_later: bool = False, **plan: Any) -> Life:
        """Start a life; with `is_armed_later` its points count once `arm` is called."""
        self._number += 1
        hits, output = self._place / f"hits-{self._number}", self._place / f"output-{self._number}"
        arm = str(self.arm_file(hits)) if is_armed_later else None
        argv = ["serve", "--port", "0", "--data-dir", str(data_dir), "--config", os.devnull, "--upstream", url]
        environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ},
            "KDPROXY_CHECK_UPSTREAMS": "false",
            "KDPROXY_SEGMENT_BYTES": "20000",
        }
        planned = asdict(Plan(data_dir=str(data_dir), hits=str(hits), arm=arm, **plan))
        request = {"argv": argv, "plan": planned, "output": str(output), "environment": environment}
        self.latest = Life(self, self.request(request)["pid"], data_dir, output, hits)
        return self.latest

    @staticmethod
    def arm_file(hits: Path) -> Path:
        return hits.with_name(hits.name + "-arm")

    def arm(self, life: Life) -> None:
        self.arm_file(life.hits).touch()


@contextmanager
def forks(place: Path) -> Iterator[Forks]:
    """Start the process that forks; what still runs at the end is killed."""
    command = [sys.executable, "-m", "tests.e2e.crash.forking"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        opened = Forks(process, place)
        try:
            yield opened
        finally:
            if opened.latest is not None:
                opened.latest.kill()
            assert process.stdin is not None
            process.stdin.close()
