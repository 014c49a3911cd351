"""`kdproxy run` with signals, a terminal, kills, and calls that the command leaves behind."""

import asyncio
import fcntl
import os
import pty
import signal
import sys
import termios
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import run_proxy_process
from kdproxy.testing.teacher import RateLimited, ScriptedTeacher

pytestmark = pytest.mark.asyncio

HANDLER = """
def handle(number, frame):
    os.write(1, f"got {signal.Signals(number).name}\\n".encode())
    if number != signal.SIGUSR1:
        sys.exit(5)
for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1"):
    signal.signal(getattr(signal, name), handle)
say("ready")
while True:
    time.sleep(0.02)
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_signal_ends_the_command_and_the_code_says_so(
    start_job: Any, number: signal.Signals, code: int
) -> None:
    job = await start_job("say('ready'); time.sleep(60)")
    await job.line()
    job.process.send_signal(number)
    assert (await job.end())[0] == code


async def test_what_the_command_handles_is_its_own_matter(start_job: Any) -> None:
    job = await start_job(HANDLER)
    await job.line()
    job.process.send_signal(signal.SIGUSR1)
    assert await job.line() == "got SIGUSR1"
    job.process.send_signal(signal.SIGHUP)
    code, lines, _ = await job.end()
    assert (code, lines) == (5, ["got SIGHUP"])


async def test_a_killed_run_has_lost_nothing(teacher: ScriptedTeacher, start_job: Any) -> None:
    job = await start_job(
        "parent = os.getppid()\nfor _ in range(3): say(ask())\nwhile os.getppid() == parent: time.sleep(0.02)"
    )
    first = [await job.line() for _ in range(3)]
    job.process.kill()
    await job.process.wait()
    code, second, err = await (await start_job("for _ in range(3): say(ask())")).end()
    assert (code, second) == (0, first), err
    assert teacher.count("completions") == 3


async def test_a_killed_run_is_continued_while_the_proxy_runs(
    teacher: ScriptedTeacher, tmp_path: Path, start_job: Any
) -> None:
    """Nobody closed its attempt: the proxy sees that its process is gone."""
    async with run_proxy_process(teacher, tmp_path / "data"):
        job = await start_job("parent = os.getppid()\nsay(ask())\nwhile os.getppid() == parent: time.sleep(0.02)")
        first = await job.line()
        busy, _, err = await (await start_job("say(ask())", "--continue")).end()
        assert (busy, "is open already" in err) == (1, True), err
        job.process.kill()
        await job.process.wait()
        code, lines, err = await (await start_job("say(ask())", "--continue")).end()
    assert (code, "attempt '1'" in err, len({first, *lines})) == (0, True, 2), err


async def test_a_call_that_the_command_left_is_finished_and_stored(teacher: ScriptedTeacher, start_job: Any) -> None:
    teacher.hold()
    leave = "import threading\nthreading.Thread(target=ask).start()\nsys.stdin.read()\nos._exit(3)"
    job = await start_job(leave.replace("sys.stdin.read()", "time.sleep(0.5)"))
    await job.until_said("waiting for 1 call that the command left")
    teacher.release()
    code, _, err = await job.end()
    assert (code, "1 bought" in err) == (3, True), err
    _, lines, _ = await (await start_job("say(ask())")).end()
    assert (len(lines), teacher.count("completions")) == (1, 1)


async def test_relaunch_starts_the_command_again_once_the_quota_is_back(
    teacher: ScriptedTeacher, start_job: Any, tmp_path: Path
) -> None:
    (tmp_path / "kdproxy.toml").write_text(
        f'[upstreams.teacher]\nurl = "{teacher.base_url}"\nrules = "groq"\npolicy = "fail"'
    )
    spent = RateLimited(headers={"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1000s"})
    teacher.script(spent)
    job = await start_job("say(ask())", "--relaunch")
    await job.until_said("spent quota")
    job.process.send_signal(signal.SIGINT)
    code, lines, err = await job.end()
    assert (code, lines) == (1, []), err
    assert "relaunch 1 of at most 10" in err
    # The same, with the wait left out.
    teacher.script(spent)
    program = "import kdproxy.cli.run as verb; verb._Job._wait = lambda self, seconds: True; verb.command()"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program, "--relaunch", "--data-dir", str(tmp_path / "data"), "--"),
        *(sys.executable, str(tmp_path / "distill.py")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OPENAI_BASE_URL": teacher.base_url},
        cwd=tmp_path,
    )
    out, said = await process.communicate()
    assert (process.returncode, len(out.splitlines())) == (0, 1), said.decode()
    assert said.count(b"exit code") == 2


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self) -> None:
        self.master, self._slave = pty.openpty()
        self.seen = bytearray()

    async def start(self, *command: str, environment: dict[str, str]) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=self._slave,
            stdout=self._slave,
            stderr=self._slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
            env=environment,
        )
        os.close(self._slave)
        asyncio.get_running_loop().add_reader(self.master, self._read)
        return process

    def _read(self) -> None:
        try:
            self.seen += os.read(self.master, 65_536)
        except OSError:  # its last user has closed it
            asyncio.get_running_loop().remove_reader(self.master)

    async def until(self, words: bytes) -> None:
        async with asyncio.timeout(30):
            while words not in self.seen:
                await asyncio.sleep(0.02)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.master)
        os.close(self.master)


@pytest.mark.parametrize("group", ["ours", "its own"])
async def test_a_terminal_shows_a_live_line_and_each_ctrl_c_comes_once(
    teacher: ScriptedTeacher, tmp_path: Path, ask_script: str, group: str
) -> None:
    """Wrappers sent it twice, or not at all to a command with a group of its own (uv run, poe, bun run; Ray)."""
    script = tmp_path / "distill.py"
    count = f"""
count = 0
def handle(number, frame):
    global count
    count += 1
signal.signal(signal.SIGINT, handle)
for _ in range(2): ask()
if {group != "ours"}:
    os.setpgid(0, 0)
say("asked")
for expected in range(1, 4):
    while count < expected:
        time.sleep(0.02)
    time.sleep(0.2)
    say("interrupts", count, "of", expected)
sys.exit(9)
"""
    script.write_text(ask_script + count)
    terminal = Terminal()
    process = await terminal.start(
        *(sys.executable, "-m", "kdproxy", "run", "--expect", "20", "--data-dir", str(tmp_path / "data"), "--"),
        *(sys.executable, str(script)),
        environment={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OPENAI_BASE_URL": teacher.base_url},
    )
    try:
        await terminal.until(b"asked")
        await terminal.until(b"kdproxy: 2 calls, 0 hits, 0 waiting")
        for expected in range(1, 4):
            os.write(terminal.master, b"\x03")
            await terminal.until(b"interrupts %d of %d" % (expected, expected))
        async with asyncio.timeout(30):
            assert await process.wait() == 9
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        terminal.close()
