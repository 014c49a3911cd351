"""Mistakes that people make before anything is bought: each is told at once, with its place, and with what to do."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kdproxy.cli.main import KEPT, VERBS

Say = Callable[..., Any]

TOML = """port = 8400
prot = 8401
mode = "replay-only"
read_seconds = "fast"

[upstream.teacher]
url = "https://h/v1"

[upstreams.teacher]
ulr = "https://h/v1"
provider = "openai-compatible"
max_inflight = 8
billed = "maybe"

  [upstreams.teacher.limits]
  requests_per_minit = 5
  tokens_per_minute = 0

[upstreams."lab"]
url = "api.example.com/v1"
"""
"""Eleven mistakes."""


def test_many_mistakes_are_reported_at_once_each_with_its_line(say: Say, tmp_path: Path) -> None:
    (tmp_path / "kdproxy.toml").write_text(TOML)
    ran = say("config")
    assert ran.code == 2
    told = [line.removeprefix("  - ") for line in ran.err.splitlines() if line.startswith("  - ")]
    assert [line.split(":", 1)[0] for line in told] == [
        "prot (kdproxy.toml, line 2)",
        "upstream (kdproxy.toml, line 6)",
        "mode (kdproxy.toml, line 3)",
        "read_seconds (kdproxy.toml, line 4)",
        "upstreams.teacher.ulr (kdproxy.toml, line 10)",
        "upstreams.teacher.provider (kdproxy.toml, line 11)",
        "upstreams.teacher.max_inflight (kdproxy.toml, line 12)",
        "upstreams.teacher.billed (kdproxy.toml, line 13)",
        "upstreams.teacher.limits.requests_per_minit (kdproxy.toml, line 16)",
        "upstreams.teacher.limits.tokens_per_minute (kdproxy.toml, line 17)",
        "upstreams.lab.url (kdproxy.toml, line 20)",
    ]
    near = [line.rpartition("did you mean ")[2].partition("?")[0] if "did you mean" in line else None for line in told]
    assert near[:2] == ["port", "upstreams"]
    assert near[4:9] == ["url", "openai", "max_in_flight", None, "requests_per_minute"]
    assert near[10] == "https://api.example.com/v1"
    assert "Fix them all" in ran.err


@pytest.mark.parametrize("mark", [b"\xef\xbb\xbf", b""], ids=["byte order mark", "none"])
def test_a_file_of_a_windows_editor_is_read(say: Say, tmp_path: Path, mark: bytes) -> None:
    (tmp_path / "kdproxy.toml").write_bytes(mark + b'mode = "replay"\r\nport = 8409\r\n')
    assert '"origin": "kdproxy.toml"' in say("config", "--json").out.decode()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"port = 8400\nmode = replay\n", ["is not TOML", "line 2"]),
        ("port = 8400\n".encode("utf-16"), ["is UTF-16; save it as UTF-8"]),
        (b'log_level = "\xe9"\n', ["is not UTF-8", "save it as UTF-8"]),
        (b"[upstreams.a]\nurl = 'http://h'\n[upstreams.a]\nurl = 'http://i'\n", ["is not TOML", "line 3"]),
        (b"[[upstreams]]\nurl = 'http://h'\n", ["upstreams", "tables like [upstreams.teacher]"]),
        (b"upstreams.a = 'http://h/v1'\n", ["upstreams.a (", "line 1", "must be a table with a url"]),
        (b"[upstreams.a]\nprovider = 'openai'\n", ["upstreams.a (", "line 1", "has no url"]),
        (b"[upstreams.a]\nurl = 'http://h'\nlimits = 5\n", ["upstreams.a.limits (", "line 3", "must be a table"]),
    ],
    ids=lambda value: "" if isinstance(value, list) else str(value[:24]),
)
def test_a_file_that_cannot_be_taken_says_why(say: Say, tmp_path: Path, content: bytes, says: list[str]) -> None:
    (tmp_path / "kdproxy.toml").write_bytes(content)
    ran = say("config")
    assert (ran.code, "1 problem" in ran.err) == (2, True), ran.err
    assert [part for part in says if part not in ran.err] == []


def test_a_place_that_is_no_file_says_so(say: Say, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name, why in (("folder", "Is a directory"), ("nowhere.toml", "No such file or directory")):
        ran = say("config", "--config", name)
        assert (ran.code, why in ran.err) == (2, True), ran.err
    (tmp_path / "kdproxy.toml").write_text('token_file = "folder"\n')
    assert "token_file: folder cannot be read" in say("config").err


def test_a_mistake_in_a_table_blames_nothing_else(say: Say, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that the table names is known, though the table cannot be used."""
    monkeypatch.setenv("KDPROXY_TEACHER_KEY", "any")
    text = "[upstreams.a]\nurl = 'http://h'\npolicy = 'wait'\ncredential_env = 'KDPROXY_TEACHER_KEY'\n"
    (tmp_path / "kdproxy.toml").write_text(text)
    ran = say("config")
    assert "1 problem" in ran.err
    assert "KDPROXY_TEACHER_KEY" not in ran.err


@pytest.mark.parametrize(
    ("made", "says"),
    [("file", "is not a directory"), ("foreign", "holds files that are not kdproxy's"), ("locked", "cannot be")],
)
def test_a_data_directory_that_cannot_be_taken(say: Say, tmp_path: Path, made: str, says: str) -> None:
    data = tmp_path / "data"
    if made == "file":
        data.write_text("mine")
    elif made == "foreign":
        data.mkdir()
        (data / "thesis.tex").write_text("mine")
    else:
        (tmp_path / "file").touch()
        data = tmp_path / "file" / "below"
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "response": "b", "model": "m"}\n')
    ran = say("warm", "rows.jsonl", "--data-dir", str(data))
    assert ran.code == 1
    assert says in ran.err or "Not a directory" in ran.err
    assert "Hint: " in ran.err
    assert "Traceback" not in ran.err


INTERRUPTED = """
import sys
import kdproxy.cli.{verb} as verb

def interrupted(*_, **__):
    raise KeyboardInterrupt

first = next(name for name in ("_await", "examine", "load") if hasattr(verb, name))  # what `ready`, `doctor` call
setattr(verb, first, interrupted)
from kdproxy.cli.main import main
main()
"""
"""Ctrl-C at the first moment of a verb; a later one takes the same way out."""


@pytest.mark.parametrize("verb", VERBS)
def test_ctrl_c_says_what_was_kept_in_place_of_aborted(verb: str, tmp_path: Path) -> None:
    arguments = {
        "warm": ["/dev/null"],
        "forget": ["--empty"],
        "ready": ["--port-file", "x"],
        "run": ["--", "true"],
        "runs": ["list"],
    }.get(verb, [])
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(verb=verb), verb, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGINT
    assert done.stderr == f"kdproxy: interrupted. {KEPT.get(verb, 'Nothing was changed.')}\n"


def test_ctrl_c_amid_a_warm_keeps_what_was_kept(kdproxy: Say, tmp_path: Path) -> None:
    """The first lines are in when Ctrl-C comes, and the next run skips them."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f'{{"prompt": "{number}", "response": "so", "model": "m"}}\n' for number in range(3_000)))
    script = """
import os, signal
import kdproxy.cli.job_runner as job_runner
shown = job_runner.shown
def interrupted(events, *, title):
    def counted():
        for number, event in enumerate(events):
            if number == 3:
                os.kill(os.getpid(), signal.SIGINT)
            yield event
    return shown(counted(), title=title)
job_runner.shown = interrupted
from kdproxy.cli.main import main
main()
"""
    arguments = [sys.executable, "-c", script, "warm", str(rows), "--data-dir", "kdproxy-data"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 130, done.stderr
    assert "interrupted. What was stored so far stays" in done.stderr
    kept = kdproxy("stats", "--quick", "--json").json["prompts"]
    assert 0 < kept < 3_000
    again = kdproxy("warm", rows, "--json").json
    assert (again["already"], again["prompts"]) == (kept, 3_000 - kept)
