"""`kdproxy run`: attempts, samples, the bill, what the command gets, and what is refused."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.proxy import run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher
from tests.e2e.run.conftest import ASK

pytestmark = pytest.mark.asyncio

OPENAI_CLIENT = """
from openai import OpenAI
client = OpenAI(api_key="k", max_retries=0)
for _ in range(3):
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Why?"}])
    say(answer.choices[0].message.content)
"""


async def test_each_start_is_an_attempt_that_replays_from_0(teacher: ScriptedTeacher, start_job: Any) -> None:
    code, first, err = await (await start_job(OPENAI_CLIENT)).end()
    assert (code, len(set(first))) == (0, 3)
    assert "run 'distill', attempt '1'" in err
    assert "3 calls: 0 hits at no cost, 3 bought" in err
    code, second, err = await (await start_job("for _ in range(4): say(ask())")).end()
    assert second[:3] == first
    assert second[3] not in first
    assert "attempt '2', exit code 0: 4 calls: 3 hits at no cost, 1 bought" in err
    assert teacher.count("completions") == 4


async def test_continue_goes_on_with_the_last_attempts_samples(teacher: ScriptedTeacher, start_job: Any) -> None:
    _, first, _ = await (await start_job("for _ in range(2): say(ask())")).end()
    _, second, err = await (await start_job("for _ in range(2): say(ask())", "--continue")).end()
    assert len({*first, *second}) == 4
    assert "attempt '1', exit code 0: 2 calls: 0 hits" in err


async def test_the_running_proxy_is_used_and_stays(teacher: ScriptedTeacher, tmp_path: Path, start_job: Any) -> None:
    async with run_proxy_process(teacher, tmp_path / "data") as proxy:
        code, lines, err = await (await start_job("say(ask()); say(os.environ['KDPROXY_RUN_URL'])")).end()
        assert code == 0, err
        assert f"the proxy of process {proxy.pid}" in err
        assert lines[1].endswith("/_kdproxy/api/runs/distill")
        assert proxy.process.returncode is None
    assert teacher.count("completions") == 1


async def test_two_at_once_share_the_first_ones_proxy(teacher: ScriptedTeacher, tmp_path: Path, start_job: Any) -> None:
    go_on, second_is_up = tmp_path / "go on", tmp_path / "second is up"
    waiting = f"while not os.path.exists({str(go_on)!r}): time.sleep(0.02)\n"
    first = await start_job(f"say(ask())\n{waiting.replace(str(go_on), str(second_is_up))}", "--name", "one")
    await first.line()
    script = f"say(ask())\n{waiting}say(ask('Later'))"
    second = await start_job(script, "--name", "two", script_name="second.py")
    await second.line()
    second_is_up.touch()
    await first.until_said("still use this proxy")
    go_on.touch()
    for job in (first, second):
        code, _, err = await job.end()
        assert code == 0, err
    assert f"the proxy of process {first.process.pid}" in second.said()
    assert teacher.count("completions") == 2


async def test_what_the_command_gets(start_job: Any) -> None:
    names = (
        "OPENAI_API_BASE ANTHROPIC_BASE_URL ANTHROPIC_API_URL GOOGLE_GEMINI_BASE_URL KDPROXY_TOKEN "
        "CLAUDE_CODE_ATTRIBUTION_HEADER NO_PROXY AZURE_OPENAI_ENDPOINT"
    )
    script = f"for name in {names.split()!r}: say(os.environ.get(name))\nsay(os.environ['OPENAI_BASE_URL'])"
    job = await start_job(script, environment={"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": "intern"})
    code, lines, err = await job.end()
    base, anthropic, langchain, gemini, key, header, no_proxy, azure, openai = lines
    assert code == 0
    assert openai == base
    assert base.endswith("/v1")
    assert {anthropic, langchain, gemini} == {base.removesuffix("/v1")}
    assert len(key) == 32
    assert (header, no_proxy, azure) == ("0", "intern,127.0.0.1,localhost", "None")
    assert "the command ended without one call through kdproxy" in err


@pytest.mark.parametrize(
    ("script", "code"), [("sys.exit(7)", 7), ("raise ValueError", 1), ("os.kill(os.getpid(), signal.SIGKILL)", 137)]
)
async def test_the_exit_code_is_the_commands(start_job: Any, script: str, code: int) -> None:
    assert (await (await start_job(script)).end())[0] == code


@pytest.mark.parametrize(
    ("options", "command", "environment", "code", "words"),
    [
        ((), ("no-such-command",), {}, 127, "was not found"),
        ((), ("./notes.txt",), {}, 126, "cannot be executed"),
        (("--name", "a b"), ("true",), {}, 2, "characters other than"),
        (("--expect", "0"), ("true",), {}, 2, "--expect"),
        ((), ("true",), {"OPENAI_BASE_URL": "localhost:1234/v1"}, 2, "did you mean http://localhost:1234/v1"),
        ((), ("true",), {"OPENAI_BASE_URL": "http://h/v1/chat/completions"}, 2, "OPENAI_BASE_URL"),
    ],
)
async def test_what_is_refused_before_anything_starts(
    start_job: Any,
    tmp_path: Path,
    options: tuple[str, ...],
    command: tuple[str, ...],
    environment: dict[str, str],
    code: int,
    words: str,
) -> None:
    (tmp_path / "notes.txt").write_text("no program")
    got, _, err = await (await start_job("", *options, command=command, environment=environment)).end()
    assert (got, words in err) == (code, True), err
    assert not (tmp_path / "data").exists()


async def test_the_command_must_stand_after_two_dashes(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "kdproxy", "run", "python", "x.py"), stderr=asyncio.subprocess.PIPE, cwd=tmp_path
    )
    _, err = await process.communicate()
    assert process.returncode == 2
    assert b"kdproxy run [OPTIONS] -- python your_script.py" in err


async def test_a_base_url_of_another_kdproxy_is_refused(
    teacher: ScriptedTeacher, tmp_path: Path, start_job: Any
) -> None:
    async with run_proxy_process(teacher, tmp_path / "other") as proxy:
        job = await start_job("say(ask())", environment={"OPENAI_BASE_URL": proxy.base_url})
        code, _, err = await job.end()
    assert (code, "another kdproxy" in err) == (2, True), err
    assert teacher.count("completions") == 0


async def test_the_attempt_of_another_directory_is_no_base_url(
    teacher: ScriptedTeacher, tmp_path: Path, start_job: Any
) -> None:
    """Not taken for its own address: the key and the prompts would go to the built-in upstreams."""
    inner = f"{sys.executable} -m kdproxy run --data-dir {tmp_path / 'other'} -- {sys.executable} distill.py inner"
    script = f"say(ask()) if len(sys.argv) > 1 else sys.exit(os.system({inner!r}) >> 8)"
    code, lines, err = await (await start_job(script)).end()
    assert (code, lines, "another kdproxy" in err) == (2, [], True), err
    assert not (tmp_path / "other").exists()


async def test_a_loopback_base_url_without_a_port_is_an_upstream(start_job: Any) -> None:
    environment = {"OPENAI_BASE_URL": "http://127.0.0.1/v1", "KDPROXY_RUN_URL": "http://h:none/"}
    code, _, err = await (await start_job("", environment=environment)).end()
    assert (code, "that is the upstream now" in err) == (0, True), err


async def test_a_run_inside_a_run_has_an_attempt_of_the_same_proxy(teacher: ScriptedTeacher, start_job: Any) -> None:
    inner = f"{sys.executable} -m kdproxy run --data-dir data --name inner -- {sys.executable} distill.py inner"
    script = f"say(ask()) if len(sys.argv) > 1 else sys.exit(os.system({inner!r}) >> 8)"
    code, lines, err = await (await start_job(script)).end()
    assert (code, len(lines)) == (0, 1), err
    assert "OPENAI_BASE_URL was kdproxy's own address" in err


@pytest.mark.parametrize("stderr", ["2>&-", "2>/dev/full", ">&- 2>&- <&-"])
async def test_a_stderr_that_takes_nothing_changes_neither_the_command_nor_its_exit_code(
    teacher: ScriptedTeacher, tmp_path: Path, stderr: str
) -> None:
    script = f"{ASK}\nopen('got', 'w').write(ask())\nsys.exit(7)"
    (tmp_path / "distill.py").write_text(script)
    command = f"{sys.executable} -m kdproxy run --data-dir data -- {sys.executable} distill.py {stderr}"
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OPENAI_BASE_URL": teacher.base_url}
    process = await asyncio.create_subprocess_shell(command, cwd=tmp_path, env=environment)
    assert await asyncio.wait_for(process.wait(), 30) == 7
    assert (tmp_path / "got").read_text()


async def test_an_upstream_that_the_running_proxy_does_not_have_is_refused(
    teacher: ScriptedTeacher, tmp_path: Path, start_job: Any
) -> None:
    async with run_proxy_process(teacher, tmp_path / "data"):
        job = await start_job("say(ask())", environment={"OPENAI_BASE_URL": "https://teacher.invalid/v1"})
        code, _, err = await job.end()
    assert (code, "none of the proxy's upstreams" in err) == (2, True), err
    assert teacher.count("completions") == 0


async def test_a_script_that_skips_its_finished_rows_is_warned(teacher: ScriptedTeacher, start_job: Any) -> None:
    await (await start_job("[ask(words) for words in 'aabb']")).end()
    _, _, err = await (await start_job("[ask(words) for words in 'aabb']")).end()
    assert "--continue" not in err
    _, _, err = await (await start_job("[ask(words) for words in 'b']")).end()
    assert "start it with --continue" in err
    _, _, err = await (await start_job("[ask(words) for words in 'b']", "--continue")).end()
    assert "start it with --continue" not in err
    _, _, err = await (await start_job("[ask(words) for words in 'b']; sys.exit(3)")).end()
    assert "start it with --continue" not in err
