"""The Slurm script, run as a script: its own proxy on a free port, and no token to a stranger."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kdproxy.testing.proxy import run_proxy
from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "slurm.sbatch"
TOKEN = "a-token-of-this-test-alone"
KEY = "the-teachers-own-key"
JOB = """
import os, sys, urllib.request
base = os.environ["OPENAI_BASE_URL"]
ask = urllib.request.Request(
    base + "/chat/completions",
    data=b'{"model": "m", "messages": [{"role": "user", "content": "Why?"}]}',
    headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"], "Content-Type": "application/json"},
)
print("status", urllib.request.urlopen(ask, timeout=30).status, "base", base, flush=True)
"""


async def submit(tmp_path: Path, *command: str, upstream: str, **variables: str) -> asyncio.subprocess.Process:
    """Run the script as Slurm does: bash, in a session of its own."""
    folder = tmp_path / "bin"
    if not folder.exists():
        folder.mkdir()
        wrapper = folder / "kdproxy"
        wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kdproxy "$@"\n')
        wrapper.chmod(0o755)
        (tmp_path / "token").write_text(TOKEN + "\n")
        (tmp_path / "run").mkdir()
    environment = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "TMPDIR": str(tmp_path / "run"),
        "DATA_DIR": str(tmp_path / "data"),
        "TOKEN_FILE": str(tmp_path / "token"),
        "OPENAI_API_KEY": KEY,
        "TEACHER_KEY": KEY,
        "KDPROXY_CONFIG": str(tmp_path / "k.toml"),
        **variables,
    }
    (tmp_path / "k.toml").write_text(f'[upstreams.t]\nurl = "{upstream}"\ncredential_env = "TEACHER_KEY"\n')
    return await asyncio.create_subprocess_exec(
        "bash",
        str(SCRIPT),
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )


async def output(job: asyncio.subprocess.Process) -> tuple[int, str, str]:
    try:
        async with asyncio.timeout(60):
            out, err = await job.communicate()
    finally:
        if job.returncode is None:
            os.killpg(job.pid, signal.SIGKILL)
    assert job.returncode is not None
    return job.returncode, out.decode(), err.decode()


async def test_the_job_asks_its_own_proxy_and_the_next_job_finds_what_it_paid_for(
    teacher: ScriptedTeacher, tmp_path: Path
) -> None:
    for _ in range(2):
        job = await submit(tmp_path, sys.executable, "-c", JOB, upstream=teacher.base_url)
        code, out, err = await output(job)
        assert (code, "status 200" in out) == (0, True), err
        assert TOKEN not in out + err
        assert KEY not in out + err
        assert list((tmp_path / "run").iterdir()) == []
    assert teacher.count("/chat/completions") == 1
    assert all(call.headers["Authorization"] == f"Bearer {KEY}" for call in teacher.calls)


async def test_a_strangers_proxy_on_the_port_gets_nothing(teacher: ScriptedTeacher, tmp_path: Path) -> None:
    """It is healthy, as that of another user of the node is: the job ends, and never asks it."""
    async with ScriptedTeacher() as strangers, run_proxy(strangers) as stranger:
        port = stranger.address.rsplit(":", 1)[1]
        job = await submit(tmp_path, sys.executable, "-c", JOB, upstream=teacher.base_url, PORT=port)
        code, out, err = await output(job)
        assert code != 0
        assert "exited before it served" in err
        assert out == ""
        assert strangers.count() == 0
    assert teacher.count() == 0


async def test_the_jobs_own_end_is_the_scripts(teacher: ScriptedTeacher, tmp_path: Path) -> None:
    code, _, _ = await output(await submit(tmp_path, "sh", "-c", "exit 75", upstream=teacher.base_url))
    assert code == 75
    code, _, err = await output(await submit(tmp_path, upstream=teacher.base_url))
    assert (code, "usage" in err) == (2, True)
    code, _, err = await output(
        await submit(tmp_path, "true", upstream=teacher.base_url, TOKEN_FILE=str(tmp_path / "none"))
    )
    assert (code, "no token" in err) == (2, True)


async def test_slurms_warning_ends_the_job_and_drains_the_proxy(teacher: ScriptedTeacher, tmp_path: Path) -> None:
    started = tmp_path / "started"
    job = await submit(tmp_path, "sh", "-c", f"touch {started}; exec sleep 60", upstream=teacher.base_url)
    async with asyncio.timeout(30):
        while not started.exists():
            await asyncio.sleep(0.05)
    job.send_signal(signal.SIGTERM)  # to the batch shell alone: --signal=B:TERM@120
    code, _, err = await output(job)
    assert code == 143
    assert "shutting down" in err
    assert list((tmp_path / "run").iterdir()) == []


async def test_the_script_is_a_shell_script_without_faults(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", str(SCRIPT)], check=True)
    assert SCRIPT.stat().st_mode & 0o111
