"""Processes under measurement: started on their own core, apart from the load, and ended by their id."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from load import Measured, Order

HERE = Path(__file__).resolve().parent
START_SECONDS = 30.0
STOP_SECONDS = 70.0
_LISTENING = re.compile(rb"(?:listening on |export OPENAI_BASE_URL=)(http://[0-9.:]+)")


class BenchmarkFailed(Exception):
    """A process did not do what it was started for: there is no figure."""


def _cores() -> tuple[int | None, int | None]:
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    return (allowed[0], allowed[1]) if len(allowed) > 1 else (None, None)


SERVER_CORE, LOAD_CORE = _cores()
"""One core for what is measured, another for the load and the teacher; None where processes cannot be pinned."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running process that answers at `url`."""

    url: str
    pid: int


def spawn(arguments: Sequence[str], core: int | None, log: Path) -> subprocess.Popen[bytes]:
    """Start Python with some arguments on a core; what it says on stderr goes to `log`."""

    def pin() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})

    environment = {name: value for name, value in os.environ.items() if not name.startswith("KDPROXY_")}
    environment |= {"PYTHONPATH": str(HERE.parent)}
    # As it is installed: else each start compiles every module, a third of a short `warm`.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with log.open("ab") as stderr:
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
            cwd=log.parent,
            preexec_fn=pin,
        )


@contextmanager
def server(arguments: Sequence[str], *, core: int | None, log: Path) -> Iterator[Server]:
    """Run a server that prints where it listens, until the block is left."""
    process = spawn(arguments, core, log)
    try:
        yield Server(_address(process, log), process.pid)
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process as a user would, and with force if it does not listen."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def run_load(order: Order, log: Path) -> Measured:
    """Run the load in its own process on its own core."""
    process = spawn([str(HERE / "load.py")], LOAD_CORE, log)
    out, _ = process.communicate(orjson.dumps(asdict(order)))
    if process.returncode:
        raise BenchmarkFailed(f"the load failed: {_tail(log)}")
    members = orjson.loads(out)
    return Measured(**{**members, "cpu": tuple(members["cpu"])})


def run(arguments: Sequence[str], core: int | None, log: Path) -> str:
    """Run a command to its end and return what it printed."""
    process = spawn(arguments, core, log)
    out, _ = process.communicate()
    if process.returncode:
        raise BenchmarkFailed(f"{' '.join(arguments)} failed: {_tail(log)}")
    return out.decode()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def memory(pid: int) -> dict[str, float]:
    """Return resident and proportional set size in MB (10^6 bytes); what the system does not report is left out."""
    found = {}
    for name, file, member in (("rss_mb", "status", "VmRSS"), ("pss_mb", "smaps_rollup", "Pss")):
        with suppress(OSError):
            text = Path(f"/proc/{pid}/{file}").read_text(encoding="ascii", errors="replace")
            if match := re.search(rf"^{member}:\s*(\d+) kB", text, re.MULTILINE):
                found[name] = int(match[1]) * 1_024 / 1e6
    return found


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    assert process.stdout is not None
    descriptor, seen = process.stdout.fileno(), b""
    deadline = time.monotonic() + START_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left)[0]:
            break
        chunk = os.read(descriptor, 65_536)
        seen += chunk
        if match := _LISTENING.search(seen):
            return match[1].decode()
        if not chunk:
            break
    raise BenchmarkFailed(f"a server did not start: {_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace").strip()[-600:]
