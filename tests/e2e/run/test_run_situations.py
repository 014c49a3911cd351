"""Situations from public reports about wrapper commands and base URLs, each with `kdproxy run`."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kdproxy.testing.teacher import ScriptedTeacher

pytestmark = pytest.mark.asyncio


async def test_empty_variable_from_a_template_is_not_set(teacher: ScriptedTeacher, start_job: Any) -> None:
    """Compose files and CI templates leave OPENAI_BASE_URL empty; the SDK then has no URL at all (openai-python)."""
    empty = {"OPENAI_BASE_URL": "", "OPENAI_API_BASE": " "}
    job = await start_job("say(ask()); say(ask(base=os.environ['OPENAI_API_BASE']))", "--upstream", teacher.base_url)
    first = await job.end()
    job = await start_job("say(ask())", "--upstream", teacher.base_url, environment=empty)
    code, lines, err = await job.end()
    assert (first[0], code, lines) == (0, 0, first[1][:1]), err


async def test_http_proxy_of_the_environment_is_not_asked(teacher: ScriptedTeacher, start_job: Any) -> None:
    """Behind a system proxy, clients send calls for loopback to it, which answers 502 (reports on httpx and Clash)."""
    dead = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9"}
    code, lines, err = await (await start_job("say(ask())", environment=dead)).end()
    assert (code, len(lines)) == (0, 1), err


async def test_settings_that_override_the_variable_are_noticed(teacher: ScriptedTeacher, start_job: Any) -> None:
    """`.env` with override, or a client's settings file, wins over a launcher's variables (ollama and omlx launch)."""
    script = f"say(ask(base={teacher.base_url!r}))"
    job = await start_job(script, environment={"CLAUDE_CODE_USE_BEDROCK": "1"})
    code, _, err = await job.end()
    assert code == 0
    assert "CLAUDE_CODE_USE_BEDROCK is set" in err
    assert "ended without one call through kdproxy" in err


async def test_two_variables_with_two_teachers_stay_two(teacher: ScriptedTeacher, start_job: Any) -> None:
    """LangChain reads OPENAI_API_BASE before the SDK reads OPENAI_BASE_URL: both may be set, to different servers."""
    async with ScriptedTeacher() as other:
        both = {"OPENAI_API_BASE": other.base_url, "GROQ_API_BASE": other.base_url}
        script = "ask(); [ask(name, os.environ[name]) for name in ('OPENAI_API_BASE', 'GROQ_API_BASE')]"
        code, _, err = await (await start_job(script, environment=both)).end()
        assert code == 0, err
        assert (teacher.count("completions"), other.count("completions")) == (1, 2)


async def test_a_base_url_with_or_without_v1_gives_the_teachers_path(teacher: ScriptedTeacher, start_job: Any) -> None:
    """With /v1 it gave /v1/v1/messages, without it /messages (LiteLLM, Vercel AI SDK); some servers have no version."""
    script = """
def message(base):
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Why?"}]}).encode()
    headers = {"x-api-key": "k", "anthropic-version": "2023-06-01", "Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(base + "/v1/messages", body, headers), timeout=30).read()
message(os.environ["ANTHROPIC_BASE_URL"]); ask()
"""
    places = {"ANTHROPIC_BASE_URL": teacher.base_url, "OPENAI_BASE_URL": teacher.base_url.removesuffix("/v1")}
    code, _, err = await (await start_job(script, environment=places)).end()
    assert code == 0, err
    assert (teacher.count("/v1/messages"), teacher.count("/chat/completions")) == (1, 1)
    assert (teacher.count("/v1/v1/messages"), teacher.count("/v1/chat/completions")) == (0, 0)


async def test_the_old_export_of_a_shell_gets_the_attempts_address(teacher: ScriptedTeacher, start_job: Any) -> None:
    """The shell still exports the address of a `kdproxy serve` that has ended."""
    old = {"OPENAI_BASE_URL": "http://localhost:8400/v1"}
    code, _, err = await (await start_job("ask()", "--upstream", teacher.base_url, environment=old)).end()
    assert (code, "OPENAI_BASE_URL was kdproxy's own address" in err) == (0, True), err


async def test_a_run_inside_a_run_has_an_attempt_of_its_own(
    teacher: ScriptedTeacher, start_job: Any, tmp_path: Path
) -> None:
    """A Makefile or Procfile under the wrapper starts the wrapper again (honcho, direnv)."""
    (tmp_path / "inner.py").write_text("")
    inner = [sys.executable, "-m", "kdproxy", "run", "--data-dir", str(tmp_path / "data"), "--name", "inner", "--"]
    script = f"""
if len(sys.argv) == 1:
    import subprocess
    say(ask())
    sys.exit(subprocess.run({inner!r} + [sys.executable, __file__, "--", "two words"]).returncode)
say(ask())
say(sys.argv[1:])
sys.exit(4)
"""
    code, lines, err = await (await start_job(script)).end()
    assert code == 4, err
    assert lines[0] == lines[1], "both attempts begin at sample 0"
    assert lines[2] == "['--', 'two words']"
    assert teacher.count("completions") == 1


async def test_standard_input_and_output_are_the_commands(teacher: ScriptedTeacher, tmp_path: Path) -> None:
    """A wrapper that reads or buffers them breaks pipelines (bubblewrap, dotenv runners)."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "kdproxy", "run", "--data-dir", str(tmp_path / "data"), "--", "cat"],
        input=b"\x00row\n" * 50_000,
        capture_output=True,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "OPENAI_BASE_URL": teacher.base_url},
    )
    assert done.stdout == b"\x00row\n" * 50_000


async def test_workers_in_sessions_of_their_own_use_the_same_attempt(teacher: ScriptedTeacher, start_job: Any) -> None:
    """torchrun starts its ranks in new sessions; their calls belong to the job all the same."""
    script = """
import subprocess
if len(sys.argv) == 1:
    ranks = [subprocess.Popen([sys.executable, __file__, "rank"], start_new_session=True) for _ in range(2)]
    sys.exit(max(rank.wait() for rank in ranks))
say(ask())
"""
    code, lines, err = await (await start_job(script)).end()
    assert (code, len(set(lines))) == (0, 2), err
    assert "2 calls: 0 hits at no cost, 2 bought" in err


async def test_a_key_in_a_url_is_not_shown(start_job: Any) -> None:
    """A base URL with credentials in it is refused, and its secret is in no message."""
    job = await start_job("", environment={"OPENAI_BASE_URL": "https://user:hidden@host/v1"})
    code, _, err = await job.end()
    assert (code, "hidden" in err) == (2, False), err
