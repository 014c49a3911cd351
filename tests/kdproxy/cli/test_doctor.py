"""`kdproxy doctor` names what is wrong and what to do, spends nothing, changes nothing, and raises no false alarm."""

import asyncio
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.testing.proxy import run_proxy
from kdproxy.testing.teacher import ScriptedTeacher
from tests.kdproxy.cli.test_no_change import STATES, fill, state

Run = Callable[..., Any]

_CLEARED = ("_API_KEY", "_BASE_URL", "_API_BASE", "_API_URL", "_ENDPOINT", "_PROXY", "_proxy", "_AUTH_TOKEN")


@pytest.fixture
def doctor(say: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run `kdproxy doctor` on a directory, in this process, without the environment of whoever runs the tests."""
    for name in [name for name in os.environ if name.endswith(_CLEARED)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    def doctor(data: Path, *arguments: str) -> Any:
        return say("doctor", "--data-dir", data, *arguments)

    return doctor


@pytest.fixture
def data(tmp_path: Path) -> Path:
    fill(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port where nothing listens, and nothing else will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def found(ran: Any, name: str, state: str = "problem") -> list[dict[str, Any]]:
    return [check for check in ran.json["checks"] if (check["check"], check["state"]) == (name, state)]


def problems(ran: Any) -> list[str]:
    return [f"{check['check']}: {check['text']}" for check in ran.json["checks"] if check["state"] == "problem"]


# -- it reads only --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", STATES)
def test_it_changes_no_byte_mode_or_time(data: Path, doctor: Run, how: str) -> None:
    STATES[how](data)
    before = state(data)
    ran = doctor(data, "--offline", "--json")
    assert state(data) == before
    assert (problems(ran), ran.code) == ([], 0)
    unchecked = [check["text"] for check in ran.json["checks"] if check["text"].startswith("Could not")]
    assert unchecked == []


@pytest.mark.asyncio
async def test_it_sends_gets_only_and_works_beside_a_running_proxy(data: Path, doctor: Run) -> None:
    async with ScriptedTeacher() as teacher, run_proxy(teacher, data_dir=data) as proxy:
        before = state(data)
        ran = await asyncio.to_thread(doctor, data, "--upstream", teacher.base_url, "--json")
        assert (problems(ran), ran.code) == ([], 0)
        assert state(data) == before
        assert {call.method for call in teacher.calls} <= {"GET"}
        assert "reached" in found(ran, "upstreams", "ok")[0]["text"]
        assert f"serves at {proxy.address}" in found(ran, "owner", "ok")[0]["text"]


def test_a_missing_directory_is_not_made(tmp_path: Path, doctor: Run) -> None:
    ran = doctor(tmp_path / "new" / "data", "--offline", "--json")
    assert (ran.code, problems(ran)) == (0, [])
    assert not (tmp_path / "new").exists()


# -- each problem, with what to do -----------------------------------------------------------------------------


def test_every_problem_says_what_to_do(data: Path, doctor: Run, closed_port: int) -> None:
    data.chmod(0o777)
    ran = doctor(data, "--json", "--upstream", f"http://127.0.0.1:{closed_port}/v1")
    assert ran.code == 1
    assert [check for check in ran.json["checks"] if check["state"] == "problem" and not check["hint"]] == []
    assert ran.json["problems"] == len(problems(ran)) > 0


def test_an_upstream_that_is_away_is_a_problem(data: Path, doctor: Run, closed_port: int) -> None:
    ran = doctor(data, "--json", "--upstream", f"http://127.0.0.1:{closed_port}/v1")
    assert ran.code == 1
    assert "refused" in found(ran, "upstreams")[0]["text"]


def test_an_open_bind_without_a_token_is_a_problem(data: Path, doctor: Run, tmp_path: Path) -> None:
    (tmp_path / "kdproxy.toml").write_text('host = "0.0.0.0"\n')
    ran = doctor(data, "--offline", "--json")
    assert ran.code == 1
    assert "which requires a token" in found(ran, "configuration")[0]["text"]


def test_all_mistakes_of_the_configuration_are_listed_and_the_rest_is_checked(
    data: Path, doctor: Run, tmp_path: Path
) -> None:
    (tmp_path / "kdproxy.toml").write_text('prot = 8400\nmode = "cahce"\nprices = "no-such.toml"\n')
    ran = doctor(data, "--offline", "--json")
    texts = " ".join(check["text"] for check in found(ran, "configuration"))
    assert all(each in texts for each in ("prot", "cahce", "no-such.toml"))
    assert any(check["text"].endswith("did you mean port?") for check in found(ran, "configuration"))
    assert found(ran, "journal", "ok")


def test_a_token_that_all_can_read_is_a_problem(
    data: Path, doctor: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-24-characters")
    token.chmod(0o644)
    (tmp_path / "kdproxy.toml").write_text(f'token_file = "{token}"\n')
    monkeypatch.setattr("kdproxy.ops.doctor.access._is_reachable", lambda path: True)
    assert "the proxy's token" in found(doctor(data, "--offline", "--json"), "permissions")[0]["text"]


@pytest.mark.parametrize(("mode", "what"), [(0o777, "can write"), (0o755, "can read")])
def test_a_directory_that_is_open_to_all_is_a_problem(
    data: Path, doctor: Run, monkeypatch: pytest.MonkeyPatch, mode: int, what: str
) -> None:
    data.chmod(mode)
    (data / "lock").chmod(0o644)
    monkeypatch.setattr("kdproxy.ops.doctor.access._is_reachable", lambda path: True)
    ran = doctor(data, "--offline", "--json")
    assert any(what in check["text"] and "chmod" in check["hint"] for check in found(ran, "permissions"))


def test_a_missing_and_a_shortened_segment_are_named(data: Path, doctor: Run) -> None:
    (data / "api_recovery.000001.jsonl").unlink()
    with (data / "api_recovery.000002.jsonl").open("r+b") as file:
        file.truncate(100)
    texts = [check["text"] for check in found(doctor(data, "--offline", "--json"), "journal")]
    assert ["000001" in texts[0] and "missing" in texts[0], "000002" in texts[1] and "changed" in texts[1]] == [
        True
    ] * 2


def test_a_lost_journal_is_a_problem(data: Path, doctor: Run) -> None:
    for path in data.glob("api_recovery.0*"):
        path.unlink()
    (data / "segments.json").unlink()
    (data / "api_recovery.jsonl").write_bytes(b"")
    before = state(data)
    ran = doctor(data, "--offline", "--json")
    assert (ran.code, state(data)) == (1, before)
    assert "but its index knows" in found(ran, "journal")[0]["text"]


def test_a_foreign_directory_is_named_and_left(tmp_path: Path, doctor: Run) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "train.py").write_text("")
    ran = doctor(tmp_path / "project", "--offline", "--json")
    assert ran.code == 1
    assert "train.py" in found(ran, "data directory")[0]["text"]


@pytest.mark.asyncio
async def test_an_owner_that_was_killed_is_a_note(data: Path, doctor: Run) -> None:
    async with ScriptedTeacher() as teacher, run_proxy(teacher, data_dir=data):
        kept = (data / "lock").read_bytes()
    (data / "lock").write_bytes(kept)
    ran = await asyncio.to_thread(doctor, data, "--offline", "--json")
    assert ran.code == 0
    assert "ended without closing" in found(ran, "owner", "note")[0]["text"]


@pytest.mark.asyncio
async def test_an_owner_that_does_not_answer_is_a_problem(data: Path, doctor: Run, closed_port: int) -> None:
    async with ScriptedTeacher() as teacher, run_proxy(teacher, data_dir=data):
        owner = orjson.loads((data / "lock").read_bytes())
        owner["address"] = f"http://127.0.0.1:{closed_port}"
        (data / "lock").write_bytes(orjson.dumps(owner).ljust(2_048))
        ran = await asyncio.to_thread(doctor, data, "--offline", "--json")
    assert "does not answer" in found(ran, "owner")[0]["text"]


@pytest.mark.asyncio
async def test_a_base_url_that_leads_past_the_proxy_is_a_problem(
    data: Path, doctor: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedTeacher() as teacher, run_proxy(teacher, data_dir=data) as proxy:
        monkeypatch.setenv("OPENAI_BASE_URL", teacher.base_url)
        past = await asyncio.to_thread(doctor, data, "--offline", "--json")
        monkeypatch.setenv("OPENAI_BASE_URL", proxy.base_url)
        through = await asyncio.to_thread(doctor, data, "--offline", "--json")
    assert proxy.address in found(past, "base URLs")[0]["text"]
    assert (found(through, "base URLs"), len(found(through, "base URLs", "ok"))) == ([], 1)
    # Without a running proxy the variable names the teacher of `kdproxy run`.
    monkeypatch.setenv("OPENAI_BASE_URL", "https://teacher.example/v1")
    alone = await asyncio.to_thread(doctor, data, "--offline", "--json")
    assert found(alone, "base URLs") == []


def test_a_journal_from_the_future_is_a_problem(data: Path, doctor: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kdproxy.cli.doctor_inputs.SystemClock.now", staticmethod(lambda: 1_000.0))
    (data / "events.jsonl").write_bytes(b'{"v":2,"kind":"start","created_at":9000.0}\n')
    ran = doctor(data, "--offline", "--json")
    assert "8,000 s from now" in found(ran, "clock")[0]["text"]


# -- what other doctors got wrong: each one a public report of brew, flutter, expo, litellm, nagios and others ---


@pytest.mark.asyncio
async def test_a_check_never_asks_a_model(data: Path, doctor: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Health checks that send a short completion have cost hundreds of dollars."""
    monkeypatch.setenv("TEACHER_KEY", "a-key-for-tests")
    async with ScriptedTeacher() as teacher:
        for _ in range(3):
            await asyncio.to_thread(doctor, data, "--upstream", teacher.base_url)
        assert {(call.method, call.path) for call in teacher.calls} <= {("GET", "/v1/models")}


def test_a_report_with_problems_is_whole_json_on_stdout(data: Path, doctor: Run) -> None:
    """A doctor printed its report to stderr, behind a prefix, whenever a check failed."""
    (data / "directory.json").write_text('{"format": 99, "upstreams": {}}')
    ran = doctor(data, "--offline", "--json")
    assert (ran.code, ran.json["problems"]) == (1, 1)
    assert ran.err.count("\n") == 1


def test_both_forms_of_the_report_have_one_exit_code(data: Path, doctor: Run) -> None:
    """The text form of a doctor exited with 0 where its JSON form exited with 1."""
    assert doctor(data, "--offline").code == doctor(data, "--offline", "--json").code == 0
    (data / "directory.json").write_text('{"format": 99, "upstreams": {}}')
    assert doctor(data, "--offline").code == doctor(data, "--offline", "--json").code == 1


@pytest.mark.parametrize("text", [b"", b"[]", b'"x"', b"{", b'{"pid": "x"}', b"\0" * 2_048, b"\xff\xfe"])
def test_a_damaged_lock_file_does_not_end_the_report(data: Path, doctor: Run, text: bytes) -> None:
    """A doctor asserted that a state file holds an object, and ended in a traceback."""
    (data / "lock").write_bytes(text)
    ran = doctor(data, "--offline", "--json")
    assert (ran.code, problems(ran)) == (0, [])


@pytest.mark.parametrize("name", ["segments.json", "api_recovery.jsonl", "events.jsonl", "lanes.json", "secret"])
def test_damaged_files_do_not_end_the_report(data: Path, doctor: Run, name: str) -> None:
    (data / name).write_bytes(b"{\xff\n[]\n")
    ran = doctor(data, "--offline", "--json")
    assert found(ran, "clock", "ok")
    assert not any(check["text"].startswith("Could not") for check in ran.json["checks"])


@pytest.mark.asyncio
async def test_a_slow_upstream_is_not_reported_as_down(data: Path, doctor: Run) -> None:
    """A doctor with a timeout of a second called slow networks broken."""

    async def answer_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(1.2)
        writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"data":[]}')
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer_late, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        ran = await asyncio.to_thread(doctor, data, "--upstream", f"http://127.0.0.1:{port}/v1", "--json")
    assert (ran.code, problems(ran)) == (0, [])
    assert "0 models" in found(ran, "upstreams", "ok")[0]["text"]


def test_a_machine_without_network_or_upstream_has_no_problem(data: Path, doctor: Run) -> None:
    """A doctor in an installer failed behind a web proxy; what is not configured is not asked."""
    ran = doctor(data, "--json")
    assert (ran.code, problems(ran)) == (0, [])
    assert "none is configured" in found(ran, "upstreams", "note")[0]["text"]


def test_a_shell_with_a_web_proxy_is_no_problem_for_kdproxy_run(
    data: Path, doctor: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://user:hidden@proxy.example:3128")
    ran = doctor(data, "--offline", "--json")
    assert (problems(ran), len(found(ran, "web proxies", "note"))) == ([], 1)
    assert b"hidden" not in ran.out
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:8400/v1")
    assert "NO_PROXY" in found(doctor(data, "--offline", "--json"), "web proxies")[0]["hint"]


def test_files_of_other_programs_are_no_problem(data: Path, doctor: Run) -> None:
    (data / "notes.txt").write_text("mine")
    (data / "notes.txt").chmod(0o666)
    shutil.copy(data / "api_recovery.000001.jsonl", data / "api_recovery.sync-conflict-1.jsonl")
    ran = doctor(data, "--offline", "--json")
    assert (ran.code, problems(ran)) == (0, [])
    assert "sync-conflict" in found(ran, "journal", "note")[0]["text"]
