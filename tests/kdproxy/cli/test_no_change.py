"""What only reads changes nothing in the data directory: no byte, mode or time, in whatever state it is found."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.core.models import Entry
from kdproxy.storage.directory import DataDirectory
from tests.kdproxy.sample import numbered

Run = Callable[..., Any]
COUNT = 8


def entry(number: int) -> Entry:
    message = {"role": "assistant", "content": "Thus."}
    body = orjson.dumps({"choices": [{"index": 0, "finish_reason": "stop", "message": message}]})
    return numbered(number, body, request=b'{"model":"m","messages":[{"role":"user","content":"Why?"}]}')


def fill(data: Path) -> None:
    directory = DataDirectory.open(data, command="test", segment_bytes=1_500)
    for number in range(COUNT):
        assert asyncio.run(directory.archive.keep(entry(number)))
    directory.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    fill(tmp_path / "data")
    assert (tmp_path / "data" / "api_recovery.000002.jsonl").exists()
    return tmp_path / "data"


def state(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything of a tree that a write could change."""
    found: dict[str, tuple[object, ...]] = {}
    for path in [root, *sorted(root.rglob("*"))]:
        status = path.lstat()
        text = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino, text)
    return found


def sql(data: Path, statement: str) -> None:
    connection = sqlite3.connect(data / "index" / "cache.db")
    with connection:
        connection.execute(statement)
    connection.close()


def behind(data: Path) -> None:
    """The index of an earlier day, as a restored one is."""
    kept = data.parent / "kept"
    shutil.copytree(data / "index", kept)
    directory = DataDirectory.open(data, command="test")
    assert asyncio.run(directory.archive.keep(entry(COUNT)))
    directory.close()
    shutil.rmtree(data / "index")
    kept.rename(data / "index")


def torn(data: Path) -> None:
    with (data / "api_recovery.jsonl").open("ab") as file:
        file.write(b'{"v":1,"kind":"ans')


def sealed_by_half(data: Path) -> None:
    number = len(list(data.glob("api_recovery.0*"))) + 1
    (data / "api_recovery.jsonl").rename(data / f"api_recovery.{number:06d}.jsonl")


STATES: dict[str, Callable[[Path], object]] = {
    "closed": lambda data: None,
    "killed amid a line": torn,
    "index behind": behind,
    "index gone": lambda data: shutil.rmtree(data / "index"),
    "index of zeros": lambda data: (data / "index" / "cache.db").write_bytes(bytes(50_000)),
    "index empty": lambda data: (data / "index" / "cache.db").write_bytes(b""),
    "index of another table": lambda data: sql(data, "ALTER TABLE Cache RENAME COLUMN value TO content"),
    "index with a pickle": lambda data: sql(data, "UPDATE Cache SET mode = 4"),
    "index that claims too little": lambda data: sql(data, "DELETE FROM Cache WHERE key = 'watermark'"),
    "no manifest": lambda data: (data / "segments.json").unlink(),
    "no description": lambda data: (data / "directory.json").unlink(),
    "journal alone": lambda data: [
        path.unlink() if path.is_file() else shutil.rmtree(path)
        for path in data.iterdir()
        if not path.name.startswith("api_recovery")
    ],
    "amid a seal": sealed_by_half,
}
READS = [
    ["stats", "--json"],
    ["stats", "--quick"],
    ["verify", "--json"],
    ["export"],
    ["export", "--format", "chat", "--all"],
    ["forget", "--match", "Why", "--json"],
]


@pytest.mark.parametrize("how", STATES)
def test_what_only_reads_changes_nothing(data: Path, say: Run, how: str) -> None:
    STATES[how](data)
    count = COUNT + (how == "index behind")
    before = state(data)
    ran = {" ".join(arguments): say(*arguments, "--data-dir", data) for arguments in READS}
    assert state(data) == before
    assert ran["stats --json"].json["answers"] == count
    assert len(ran["export"].out.splitlines()) == count
    assert len(ran["export --format chat --all"].out.splitlines()) == count
    assert ran["forget --match Why --json"].json["found"] == count
    verified = ran["verify --json"].json
    is_damaged = how in ("index of zeros", "index of another table", "index with a pickle")
    assert (verified["problems"], verified["index"]) == (int(is_damaged), int(is_damaged))
    assert {text: run.code for text, run in ran.items() if run.code} == ({"verify --json": 1} if is_damaged else {})


@pytest.mark.parametrize("how", STATES)
@pytest.mark.parametrize("verb", ["forget", "verify --repair"])
def test_what_writes_repairs_by_itself(data: Path, say: Run, how: str, verb: str) -> None:
    STATES[how](data)
    arguments = {"forget": ["forget", "--key", f"{0:064x}", "--yes"], "verify --repair": ["verify", "--repair"]}[verb]
    ran = say(*arguments, "--data-dir", data)
    assert ran.code == 0, ran.err
    verified = say("verify", "--data-dir", data, "--json")
    assert (verified.code, verified.json["problems"]) == (0, 0)
    left = COUNT + (how == "index behind") - (verb == "forget")
    assert say("stats", "--data-dir", data, "--json").json["answers"] == left


def test_a_temporary_directory_without_room_is_no_hindrance(
    data: Path, say: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kdproxy.storage import reading

    before = state(data)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for module, name in ((reading.shutil, "copyfile"), (reading.tempfile, "TemporaryDirectory")):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, refuse)
            assert len(say("export", "--data-dir", data).out.splitlines()) == COUNT
    assert state(data) == before


def test_a_lost_journal_is_reported_and_left(data: Path, say: Run) -> None:
    journal = data / "api_recovery.jsonl"
    left = sum(path.read_bytes().count(b"\n") for path in data.glob("api_recovery.0*"))
    journal.write_bytes(b"")
    before = state(data)
    for arguments in READS:
        ran = say(*arguments, "--data-dir", data)
        assert (ran.code, ran.out) == (1, b"")
        assert f"knows {COUNT} answers ({COUNT} of openai)" in ran.err
        assert f"--accept-loss --data-dir {data}" in ran.err
    assert state(data) == before
    accepted = say("verify", "--accept-loss", "--data-dir", data, "--json")
    assert (accepted.code, accepted.json["problems"]) == (0, 0)
    assert accepted.json["lines"] == left
    assert say("stats", "--data-dir", data).code == 0


@pytest.mark.parametrize("how", ["edited", "emptied", "added", "removed"])
def test_verify_names_a_segment_that_is_not_as_it_was_sealed(data: Path, say: Run, how: str) -> None:
    path = data / "api_recovery.000002.jsonl"
    match how:
        case "edited":
            path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
        case "emptied":
            path.write_bytes(b"")
        case "added":
            path = data / "api_recovery.000000.jsonl"
            shutil.copy(data / "api_recovery.000001.jsonl", path)
        case "removed":
            path.unlink()
    before = state(data)
    verified = say("verify", "--data-dir", data)
    assert verified.code == 1
    assert path.name in verified.out.decode()
    assert state(data) == before
    say("verify", "--accept-loss", "--data-dir", data)
    assert say("verify", "--data-dir", data).code == 0


HINTS = {
    "edited": "put it back from a copy",
    "removed": "`kdproxy verify --accept-loss`",
    "added": "the next start reads it",
    "manifest damaged": "makes it anew",
    "line damaged": "`kdproxy warm COPY`",
    "row gone": "`kdproxy verify --repair` repairs the index",
    "index gone bad": "rebuilds it from the journal",
    "event damaged": "nothing to do",
}


@pytest.mark.parametrize("how", HINTS)
def test_verify_says_what_to_do_for_each_problem(data: Path, say: Run, how: str) -> None:
    segment = data / "api_recovery.000002.jsonl"
    match how:
        case "edited":
            segment.write_bytes(segment.read_bytes().replace(b"Thus", b"Then"))
        case "removed":
            segment.unlink()
        case "added":
            shutil.copy(segment, data / "api_recovery.000000.jsonl")
        case "manifest damaged":
            (data / "segments.json").write_bytes(b"{")
        case "line damaged":
            journal = data / "api_recovery.jsonl"
            journal.write_bytes(journal.read_bytes().replace(b"Thus", b"Then"))
        case "row gone":
            sql(data, "DELETE FROM Cache WHERE key LIKE 's/%'")
        case "index gone bad":
            (data / "index" / "cache.db").write_bytes(bytes(50_000))
        case "event damaged":
            (data / "events.jsonl").write_bytes(b'{"v":2,"kind":"sent","sha256":"00"}\n')
    ran = say("verify", "--data-dir", data, "--json")
    assert ran.code == 1
    assert HINTS[how] in " ".join(ran.json["hints"])
    assert {found["hint"] for found in ran.json["findings"]} == set(ran.json["hints"])
    said = say("verify", "--data-dir", data).err
    assert all(said.count(hint) == 1 for hint in ran.json["hints"])


@pytest.mark.parametrize("segments", [0, 3])
def test_a_damaged_manifest_is_made_anew_by_the_next_start(tmp_path: Path, say: Run, segments: int) -> None:
    data = tmp_path / "data"
    if segments:
        fill(data)
    else:
        DataDirectory.open(data, command="test").close()
        (data / "api_recovery.jsonl").touch()
    (data / "segments.json").write_bytes(b"{")
    assert say("verify", "--data-dir", data).code == 1
    DataDirectory.open(data, command="test").close()
    assert say("verify", "--data-dir", data).code == 0
