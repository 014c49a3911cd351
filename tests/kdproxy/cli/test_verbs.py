"""The verbs without a running proxy: what they print where, and how they end."""

import gzip
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.cli.main import VERBS

Run = Callable[..., Any]

ROWS = [
    {"prompt": "why?", "response": "so", "model": "gpt-4.1"},
    {"messages": [{"role": "user", "content": "who?"}, {"role": "assistant", "content": "me"}], "model": "gpt-4.1"},
]


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(b"".join(orjson.dumps(row) + b"\n" for row in ROWS)))
    return file


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    file = tmp_path / "broken.jsonl"
    file.write_bytes(orjson.dumps(ROWS[0]) + b"\noops\n" + orjson.dumps(ROWS[1]) + b"\n")
    return file


def test_warm_reports_on_stderr_and_prints_nothing(kdproxy: Run, rows: Path, tmp_path: Path) -> None:
    ran = kdproxy("warm", rows)
    assert (ran.code, ran.out) == (0, b"")
    assert "2 prompts stored" in ran.err
    assert (tmp_path / "kdproxy-data" / "api_recovery.jsonl").read_bytes().count(b"\n") == 2
    again = kdproxy("warm", rows, "--json")
    assert (again.json["prompts"], again.json["already"]) == (0, 2)


def test_a_bad_line_is_a_warning_and_with_strict_an_error(kdproxy: Run, broken: Path) -> None:
    ran = kdproxy("warm", broken)
    assert ran.code == 0
    assert f"{broken}:2: it is not JSON" in ran.err
    assert "1 line could not be used" in ran.err
    strict = kdproxy("warm", broken, "--strict", "--data-dir", "other", "--json")
    assert strict.code == 1
    assert strict.json["is_stopped"]
    assert (strict.json["prompts"], strict.json["findings"][0]["line"]) == (1, 2)


def test_an_array_and_stdin_are_taken(kdproxy: Run, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_bytes(orjson.dumps(ROWS, option=orjson.OPT_INDENT_2))
    assert kdproxy("warm", file, "--json").json["prompts"] == 2
    assert kdproxy("warm", "-", "--json", stdin=file.read_bytes()).json["already"] == 2
    ran = kdproxy(
        "warm", "-", "--json", "--data-dir", "other", stdin=gzip.compress(orjson.dumps(ROWS[0]) + b"\noops\n")
    )
    assert (ran.code, ran.json["prompts"], ran.json["bad"]) == (0, 1, 1)
    assert "/stdin:2: it is not JSON" in ran.err
    assert list(tmp_path.glob("kdproxy-*")) == [tmp_path / "kdproxy-data"]


@pytest.mark.parametrize("text", [b"oops\n", b'{"prompt": "why?"}\n', b'[{"a": 1}, {"b": 2}]', b'{\n"data": []\n}'])
def test_files_of_which_nothing_can_be_used_are_an_error(kdproxy: Run, text: bytes) -> None:
    ran = kdproxy("warm", "-", stdin=text)
    assert ran.code == 1
    assert "could not be used" in ran.err


def test_a_file_that_is_cut_is_an_error_though_most_of_it_was_read(kdproxy: Run) -> None:
    rows = b"".join(orjson.dumps({"prompt": str(n), "response": str(n * n), "model": "m"}) + b"\n" for n in range(50))
    ran = kdproxy("warm", "-", "--json", stdin=gzip.compress(rows)[:-30])
    assert ran.code == 1
    assert 0 < ran.json["prompts"] < 50
    assert f"cut off: the gzip data has no end; {ran.json['lines']} lines were read" in ran.err
    assert "1 file could not be read to the end" in ran.err
    assert kdproxy("warm", "-", stdin=gzip.compress(rows)).code == 0


def test_a_pipe_is_read_once(kdproxy: Run, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        pool.submit((tmp_path / "pipe").write_bytes, orjson.dumps(ROWS[0]) + b"\n")
        ran = kdproxy("warm", "pipe", "--json")
    assert (ran.code, ran.json["prompts"]) == (0, 1)


def test_half_a_packed_file_is_an_error(kdproxy: Run) -> None:
    ran = kdproxy("warm", "-", stdin=gzip.compress(orjson.dumps(ROWS[0]) * 20)[:30])
    assert ran.code == 1
    assert "cut off" in ran.err


def test_an_empty_file_is_a_warning(kdproxy: Run) -> None:
    ran = kdproxy("warm", "-", stdin=b"\n")
    assert ran.code == 0
    assert "these files contain no lines" in ran.err


def test_export_warm_export_gives_equal_files(kdproxy: Run, rows: Path, tmp_path: Path) -> None:
    kdproxy("warm", rows)
    first = kdproxy("export")
    assert kdproxy("export", "--output", "out.jsonl", "--json").json == {
        "rows": 2,
        "skipped": 0,
        "damaged": 0,
        "repeated": 0,
        "empty": 0,
        "other": 0,
    }
    assert (tmp_path / "out.jsonl").read_bytes() == first.out
    kdproxy("warm", "out.jsonl", "--data-dir", "second")
    assert kdproxy("export", "--data-dir", "second").out == first.out
    assert sorted(path.name for path in tmp_path.glob(".out*")) == []


def test_export_as_chat_gives_training_rows(kdproxy: Run, rows: Path) -> None:
    kdproxy("warm", rows)
    lines = [orjson.loads(line) for line in kdproxy("export", "--format", "chat").out.splitlines()]
    assert [row["messages"][-1]["content"] for row in lines] == ["so", "me"]


def test_an_export_that_cannot_be_written_leaves_nothing(kdproxy: Run, rows: Path, tmp_path: Path) -> None:
    kdproxy("warm", rows)
    ran = kdproxy("export", "--output", "nowhere/out.jsonl")
    assert ran.code == 1
    assert "cannot be written" in ran.err


def test_forget_lists_first_and_withdraws_with_yes(kdproxy: Run, rows: Path) -> None:
    kdproxy("warm", rows)
    dry = kdproxy("forget", "--match", "^who", "--json")
    assert (dry.json["found"], dry.json["withdrawn"], dry.json["is_dry_run"]) == (1, 0, True)
    assert dry.json["samples"][0]["asked"] == "who?"
    assert "'who?' -> 'me'" in kdproxy("forget", "--match", "^who").out.decode()
    assert kdproxy("stats", "--json").json["prompts"] == 2
    assert kdproxy("forget", "--match", "^who", "--yes", "--json").json["withdrawn"] == 1
    assert kdproxy("stats", "--json").json["prompts"] == 1
    # a setting like `warm = [...]` must not bring it back at each start
    assert kdproxy("warm", rows, "--json").json["withdrawn"] == 1


def test_stats_counts_by_model(kdproxy: Run, rows: Path) -> None:
    kdproxy("warm", rows)
    stats = kdproxy("stats", "--json").json
    assert (stats["answers"], stats["prompts"], stats["segments"], stats["serving"]) == (0, 2, 1, None)
    assert [(row["model"], row["answers"]) for row in stats["by_model"]] == [("gpt-4.1", 2)]
    assert kdproxy("stats", "--quick", "--json").json["by_model"] is None
    shown = kdproxy("stats").out.decode()
    assert "gpt-4.1" in shown
    assert "unknown" in shown
    assert "\u2026" not in shown  # nothing is cut short where nobody's terminal is too narrow


def test_verify_ends_with_1_while_there_are_problems(kdproxy: Run, rows: Path, tmp_path: Path) -> None:
    kdproxy("warm", rows)
    assert kdproxy("verify").code == 0
    journal = tmp_path / "kdproxy-data" / "api_recovery.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"so"', b'"no"'))
    ran = kdproxy("verify", "--json")
    assert ran.code == 1
    assert (ran.json["damaged"], ran.json["findings"][0]["line"]) == (1, 1)
    repaired = kdproxy("verify", "--repair")
    assert repaired.code == 1
    assert "api_recovery.jsonl:1 (byte 0" in repaired.out.decode()
    assert "the index is repaired" in repaired.err
    assert kdproxy("verify", "--json").json["problems"] == 1  # the line stays
    exported = kdproxy("export")
    assert (exported.code, exported.out.count(b"\n")) == (1, 1)


def test_config_stars_secrets_and_names_origins(kdproxy: Run, tmp_path: Path) -> None:
    (tmp_path / "kdproxy.toml").write_text('mode = "replay"\n')
    environment = {"KDPROXY_TOKEN": "not-a-real-token-0123456789", "KDPROXY_PORT": "8555"}
    ran = kdproxy("config", "--json", "--data-dir", "elsewhere", environment=environment)
    found = {row["name"]: (row["value"], row["origin"]) for row in ran.json}
    assert found["token"] == ("*****", "KDPROXY_TOKEN")
    assert found["mode"] == ("replay", "kdproxy.toml")
    assert found["port"] == (8555, "KDPROXY_PORT")
    assert found["data_dir"] == ("elsewhere", "flag")
    shown = kdproxy("config", environment=environment)
    assert b"not-a-real-token" not in ran.out + shown.out
    assert "replay" in shown.out.decode()


@pytest.mark.parametrize("verb", ["export", "stats", "verify", "forget"])
def test_reading_verbs_make_no_directory(verb: str, say: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir(mode=0o755)
    for path in ("none", "mine"):
        flags = ["--match", "x"] if verb == "forget" else []
        ran = say(verb, "--data-dir", path, *flags)
        assert ran.code == 1
        assert "is not a kdproxy data directory" in ran.err
        assert "Hint" in ran.err
    assert not (tmp_path / "none").exists()
    assert list((tmp_path / "mine").iterdir()) == []
    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize(
    "arguments",
    [
        ["warm"],
        ["warm", "no-such-file"],
        ["warm", "rows.jsonl.gz", "--upstream", "not a url"],
        ["forget"],
        ["forget", "--match", "("],
        ["forget", "--key", "abc"],
        ["export", "--json"],
        ["export", "--format", "csv"],
        ["stats", "--port", "1"],
        ["config", "--config", "no-such.toml"],
        ["nonsense"],
    ],
    ids=" ".join,
)
def test_wrong_use_ends_with_2_and_says_why(arguments: list[str], say: Run, rows: Path) -> None:
    ran = say(*arguments)
    assert (ran.code, ran.out) == (2, b"")
    assert ran.err.strip()


def test_every_verb_has_help(say: Run) -> None:
    assert all(verb in say("--help").out.decode() for verb in VERBS)
    for verb in VERBS:
        ran = say(verb, "--help")
        assert ran.code == 0
        assert b"Usage" in ran.out
