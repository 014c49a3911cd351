"""A data directory that cannot be written is read all the same, and not a byte of it changes."""

import hashlib
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from kdproxy.testing.proxy import run_proxy_process
from kdproxy.testing.teacher import ScriptedTeacher

Run = Callable[..., Any]

CHAT = "/v1/chat/completions"


def ask(number: int) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": "Why?"}], "seed": number}


def digests(directory: Path) -> dict[str, str]:
    return {
        str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


@pytest_asyncio.fixture
async def data(teacher: ScriptedTeacher, small_disk: Path, send: Any) -> Path:
    """Three answers of a proxy that was killed: the index has a write-ahead log, and the lock names a dead owner."""
    data = small_disk / "data"
    async with run_proxy_process(teacher, data) as proxy:
        for number in range(3):
            assert (await send(proxy.address + CHAT, ask(number))).status == 200
        await proxy.kill()
    return data


@pytest.fixture
def read_only(data: Path) -> Iterator[Callable[[], Path]]:
    """Mount its disk for reading alone."""

    def read_only() -> Path:
        subprocess.run(["mount", "-o", "remount,ro", str(data.parent)], check=True)
        with pytest.raises(OSError, match="Read-only"):
            (data / "x").touch()
        return data

    yield read_only
    subprocess.run(["mount", "-o", "remount,rw", str(data.parent)], check=True)


@pytest.mark.asyncio
async def test_what_only_reads_works(read_only: Callable[[], Path], kdproxy: Run, data: Path) -> None:
    with (data / "api_recovery.jsonl").open("ab") as journal:
        journal.write(b'{"v":1,"kind":"answer"')  # a line that a kill has torn
    read_only()
    before = digests(data)
    at = ("--data-dir", data)
    exported = kdproxy("export", *at)
    assert (exported.code, len(exported.out.splitlines())) == (0, 3)
    assert [
        row["messages"][0]["content"]
        for row in map(orjson.loads, kdproxy("export", *at, "--format", "chat").out.splitlines())
    ] == ["Why?"] * 3
    verified = kdproxy("verify", *at, "--json")
    assert (verified.code, verified.json["lines"], verified.json["problems"]) == (0, 1 + 3, 0)
    stats = kdproxy("stats", *at, "--json").json
    assert (stats["answers"], stats["serving"]) == (3, None)
    assert kdproxy("forget", *at, "--match", "Why", "--json").json["found"] == 3
    assert digests(data) == before


@pytest.mark.asyncio
async def test_what_writes_says_that_it_cannot(read_only: Callable[[], Path], kdproxy: Run, tmp_path: Path) -> None:
    data = read_only()
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(orjson.dumps({"prompt": "q", "response": "a", "model": "m"}) + b"\n")
    for arguments in (("warm", rows), ("verify", "--repair"), ("forget", "--match", "Why", "--yes"), ("serve",)):
        ran = kdproxy(*arguments, "--data-dir", data)
        assert ran.code == 1, arguments
        assert "Read-only file system" in ran.err
        assert "Traceback" not in ran.err


@pytest.mark.asyncio
async def test_an_index_that_is_not_there_or_wrong_is_computed_from_the_journal(
    read_only: Callable[[], Path], kdproxy: Run, data: Path
) -> None:
    for file in (data / "index").iterdir():
        file.unlink()
    (data / "index").rmdir()
    read_only()
    assert len(kdproxy("export", "--data-dir", data).out.splitlines()) == 3
    assert kdproxy("stats", "--data-dir", data, "--json").json["answers"] == 3


@pytest.mark.asyncio
async def test_a_damaged_line_is_found(read_only: Callable[[], Path], kdproxy: Run, data: Path) -> None:
    journal = data / "api_recovery.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b"Why?", b"Who?", 1))
    read_only()
    verified = kdproxy("verify", "--data-dir", data, "--json")
    assert (verified.code, verified.json["damaged"]) == (1, 1)


@pytest.mark.asyncio
async def test_a_running_proxy_is_asked_as_ever(
    teacher: ScriptedTeacher, small_disk: Path, kdproxy: Run, send: Any
) -> None:
    """Its owner can write; who asks sees the same directory through a mount that it cannot write."""
    data, mirror = small_disk / "data", small_disk.parent / "mirror"
    mirror.mkdir()
    async with run_proxy_process(teacher, data) as proxy:
        await send(proxy.address + CHAT, ask(0))
        subprocess.run(["mount", "--bind", str(small_disk), str(mirror)], check=True)
        try:
            subprocess.run(["mount", "-o", "remount,bind,ro", str(mirror)], check=True)
            stats = kdproxy("stats", "--data-dir", mirror / "data", "--json").json
        finally:
            subprocess.run(["umount", "-l", str(mirror)], check=True)
    assert stats["answers"] == 1
    assert stats["serving"]["address"] == proxy.address


@pytest.mark.asyncio
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_what_only_reads_works_on_a_full_disk(
    teacher: ScriptedTeacher, small_disk: Path, send: Any, kdproxy: Run, ballast: Any, how: signal.Signals
) -> None:
    """What was paid for must be got out of it, just then."""
    data, count = small_disk / "data", 20
    async with run_proxy_process(teacher, data) as proxy:
        for number in range(count):
            assert (await send(proxy.address + CHAT, ask(number))).status == 200
        proxy.send(how)
        await proxy.wait()
    ballast.fill()
    exported = kdproxy("export", "--data-dir", data)
    assert (exported.code, len(exported.out.splitlines())) == (0, count), exported.err
    assert kdproxy("stats", "--data-dir", data, "--json").json["answers"] == count
    assert kdproxy("verify", "--data-dir", data, "--json").json["problems"] == 0
    # What a kill left of the index's log goes at the opening, which may make room enough: all or nothing, and said.
    tried = kdproxy("forget", "--data-dir", data, "--match", "Why", "--yes", "--json")
    assert "raceback" not in tried.err
    left = count if tried.code else 0
    assert kdproxy("stats", "--data-dir", data, "--json").json["answers"] == left
    assert tried.code in (0, 1)
    assert ("disk refused" in tried.err) == (tried.code == 1)
    ballast.free()
    assert kdproxy("forget", "--data-dir", data, "--match", "Why", "--yes", "--json").json["withdrawn"] == left
