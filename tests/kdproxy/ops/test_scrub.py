"""`scrub`: credentials leave the journal; names, keys, answers and what was withdrawn stay."""

import json
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from kdproxy.core import record
from kdproxy.core.line import seal
from kdproxy.core.models import Address, Entry, Form
from kdproxy.errors import DirectoryBusy, StorageFailed
from kdproxy.ops.scrub import scrubbed
from kdproxy.storage.directory import DataDirectory
from kdproxy.storage.durable import sync
from kdproxy.storage.rewrite import rewrite, survey

SECRET = "canary-0123456789"


def line(key: str, *, version: int = 1, body: str = "{}", seq: int = 0, **request: Any) -> bytes:
    asked = json.dumps({"model": "m", "messages": [], **request}).replace('"BIG"', "12345678901234567890123.50")
    named = {"origin": "ab" * 12, "seq": seq, "key_version": 2} if version == 2 else {}
    members = {
        "v": version,
        "kind": "answer",
        **named,
        "namespace": "default",
        "key": key * 64,
        "ordinal": 0,
        "form": "json",
        "prompt_hash": None,
        "upstream": "openai",
        "provider": "openai",
        "endpoint": "chat.completions",
        "model": "m",
        "method": "POST",
        "path": "/v1/chat/completions",
        "query": "",
        "request_headers": [],
        "request": orjson.Fragment(asked),
        "status": 200,
        "headers": [],
        "stream_options": None,
        "usage": None,
        "cost_usd": None,
        "response_id": None,
        "created_at": 1.0,
        "elapsed_seconds": None,
        "body": body,
    }
    return seal(orjson.dumps(members))


@pytest.mark.parametrize("version", [1, 2])
def test_a_line_keeps_all_but_the_credential(version: int) -> None:
    before = line(
        "a",
        version=version,
        body=f'{{"tools":"{SECRET}"}}',
        seed="BIG",
        api_key=SECRET,
        tail=[{"api_key": SECRET}],
    )
    after = scrubbed(before)
    assert after is not None
    old, new = record.read(before), record.read(after)
    assert new.name == old.name
    assert isinstance(old.record, Entry)
    assert isinstance(new.record, Entry)
    asked = new.record.request or b""
    assert list(json.loads(asked)) == ["model", "messages", "seed", "api_key", "tail"]
    assert b'"api_key":"*"' in asked
    assert b'"seed":12345678901234567890123.50,' in asked, "numbers as they were spelled"
    assert json.loads(asked)["tail"] == [{"api_key": SECRET}], "no place of a credential"
    assert new.record.answer.body == b'{"tools":"*****************"}'
    assert new.record._replace(request=None, answer=old.record.answer) == old.record._replace(request=None)
    assert scrubbed(after) is None, "nothing is left to do"


@pytest.mark.parametrize(
    "text",
    [
        line("a"),
        line("a", user="u", max_tokens=9),
        line("a", version=2, api_key="*"),
        line("a", api_key=None),
        b"not a line\n",
        line("a", api_key=SECRET)[:-9],
        line("a", api_key=SECRET).replace(b"canary", b"kanary"),
        seal(b'{"v":2,"kind":"start","origin":"%b","seq":0,"created_at":1.0,"release":"1"}' % (b"ab" * 12)),
    ],
)
def test_a_line_without_one_or_that_cannot_be_read_is_left(text: bytes) -> None:
    assert scrubbed(text) is None


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two sealed segments and an active file, of both versions; c was withdrawn, d was replaced."""
    path = tmp_path / "data"
    DataDirectory.open(path, command="test").close()
    gone = {"v": 1, "kind": "tombstone", "namespace": "default", "key": "c" * 64, "ordinal": 0, "of": "answer"}
    segments = {
        "api_recovery.000001.jsonl": [line("a", api_key=SECRET), line("b"), line("c", api_key=SECRET)],
        "api_recovery.000002.jsonl": [
            line("d", body="old", api_key=SECRET),
            seal(orjson.dumps({**gone, "reason": "bad", "created_at": 2.0})),
            line("d", body="new", api_key=SECRET),
            b"damaged canary\n",
        ],
        "api_recovery.jsonl": [line("e", version=2, seq=1, api_key=SECRET), b'{"v":1,"torn'],
    }
    for name, lines in segments.items():
        (path / name).write_bytes(b"".join(lines))
    DataDirectory.open(path, command="test").close()
    return path


def answers(path: Path) -> dict[str, bytes | None]:
    opened = DataDirectory.open(path, command="test")
    try:
        found = {key: opened.archive.find(Address("default", key * 64), Form.JSON) for key in "abcde"}
    finally:
        opened.close()
    return {key: None if answer is None else answer.body for key, answer in found.items()}


EXPECTED = {"a": b"{}", "b": b"{}", "c": None, "d": b"new", "e": b"{}"}


def holders(path: Path) -> list[str]:
    return sorted(file.name for file in path.rglob("*") if file.is_file() and SECRET.encode() in file.read_bytes())


def test_a_directory_is_scrubbed_whole(data: Path) -> None:
    assert answers(data) == EXPECTED
    names = {record.read(text).name for text in lines_of(data)}
    assert len(holders(data)) == 3
    done = list(rewrite(data, scrubbed, command="test"))
    assert [(each.segment, each.changed) for each in done] == [
        ("api_recovery.000001.jsonl", 2),
        ("api_recovery.000002.jsonl", 2),
        ("api_recovery.jsonl", 1),
    ]
    assert holders(data) == []
    assert b"damaged canary\n" in (data / "api_recovery.000002.jsonl").read_bytes()
    assert answers(data) == EXPECTED, "what was withdrawn or replaced stays so"
    assert {record.read(text).name for text in lines_of(data)} == names
    assert [each.changed for each in rewrite(data, scrubbed, command="test")] == [0, 0, 0]
    assert {file.stat().st_mode & 0o777 for file in data.glob("api_recovery*")} == {0o600}


def lines_of(path: Path) -> list[bytes]:
    texts = [text for file in path.glob("api_recovery*") for text in file.read_bytes().splitlines(keepends=True)]
    return [text for text in texts if text.startswith(b"{") and text.endswith(b"}\n")]


def test_a_change_of_segments_is_no_surprise_at_the_next_start(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    list(rewrite(data, scrubbed, command="test"))
    opened = DataDirectory.open(data, command="test")
    assert not opened.manifest.rescan(trusts_inodes=True)
    assert not opened.manifest.changes
    opened.close()


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("what", ["sync", "rename"])
def test_a_kill_or_a_full_disk_leaves_each_segment_old_or_new(
    data: Path, monkeypatch: pytest.MonkeyPatch, at: int, what: str
) -> None:
    calls = 0

    def failing(real: Any) -> Any:
        def call(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == at:
                raise OSError(28, "No space left on device")
            return real(*arguments)

        return call

    with monkeypatch.context() as patch:
        if what == "rename":
            patch.setattr(Path, "rename", failing(Path.rename))
        else:
            patch.setattr("kdproxy.storage.rewrite.sync", failing(sync))
        with pytest.raises(StorageFailed, match="No answer is lost"):
            list(rewrite(data, scrubbed, command="test"))
    assert answers(data) == EXPECTED
    list(rewrite(data, scrubbed, command="test"))
    assert (holders(data), answers(data)) == ([], EXPECTED)
    assert not list(data.glob("*.scrubbed"))


def test_a_dry_run_changes_no_byte(data: Path) -> None:
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in data.rglob("*") if file.is_file()}
    assert sum(each.changed for each in survey(data, scrubbed)) == 5
    assert before == {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in data.rglob("*") if file.is_file()}


def test_a_directory_that_is_in_use_is_left_alone(data: Path) -> None:
    opened = DataDirectory.open(data, command="test")
    try:
        with pytest.raises(DirectoryBusy):
            list(rewrite(data, scrubbed, command="test"))
    finally:
        opened.close()
    assert len(holders(data)) == 3


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_left_alone(data: Path) -> None:
    os.chown(data, 12345, 12345)
    with pytest.raises(StorageFailed, match="belongs to another user"):
        list(rewrite(data, scrubbed, command="test"))
    assert len(holders(data)) == 3


def test_a_directory_that_holds_other_files_is_left_alone(data: Path) -> None:
    (data / "directory.json").unlink()
    (data / "notes.txt").write_text("mine")
    with pytest.raises(StorageFailed, match="not kdproxy's"):
        list(rewrite(data, scrubbed, command="test"))
    assert len(holders(data)) == 3


def test_what_a_killed_run_left_is_ours(data: Path) -> None:
    (data / "directory.json").unlink()
    (data / "api_recovery.000001.jsonl.scrubbed").write_bytes(b"half a segment")
    list(rewrite(data, scrubbed, command="test"))
    assert (holders(data), answers(data)) == ([], EXPECTED)
    assert not list(data.glob("*.scrubbed"))
