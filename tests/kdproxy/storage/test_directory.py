"""The data directory: closed to others, of a known format, owned by one."""

import asyncio
import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest

from kdproxy.core.models import Entry, Form
from kdproxy.errors import DirectoryBusy, StorageFailed
from kdproxy.storage import directory as under_test
from kdproxy.storage.directory import DataDirectory
from kdproxy.storage.lock import read_owner

Open = Callable[..., DataDirectory]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    held: list[DataDirectory] = []

    def open_directory(path: Path = tmp_path / "data") -> DataDirectory:
        held.append(DataDirectory.open(path, command="test"))
        return held[-1]

    yield open_directory
    for directory in held:
        directory.close()


def test_a_new_directory_is_laid_out_and_closed_to_others(opened: Open, tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        opened(tmp_path / "deep" / "data")
    finally:
        os.umask(old)
    path = tmp_path / "deep" / "data"
    assert {child.name for child in path.iterdir()} == {
        ".gitignore",
        "directory.json",
        "lock",
        "api_recovery.jsonl",
        "index",
    }
    modes = {child.name: stat.S_IMODE(child.stat().st_mode) for child in [path, *path.rglob("*")]}
    assert {name: oct(mode) for name, mode in modes.items() if mode & 0o077} == {}
    assert (path / ".gitignore").read_text() == "*\n"
    assert orjson.loads((path / "directory.json").read_bytes()) == {"format": 2, "upstreams": {}}


def test_what_was_kept_is_there_at_the_next_opening(opened: Open, make_entry: Callable[..., Entry]) -> None:
    directory = opened()
    assert asyncio.run(directory.archive.keep(make_entry()))
    directory.close()
    assert opened().archive.find(make_entry().address, Form.JSON) == make_entry().answer


def test_upstreams_are_remembered(opened: Open) -> None:
    directory = opened()
    assert directory.upstream_urls() == {}
    directory.remember_upstreams({"a": "http://a/v1", "b": "http://b"})
    directory.remember_upstreams({"b": "http://c"})
    directory.close()
    assert opened().upstream_urls() == {"a": "http://a/v1", "b": "http://c"}


def test_a_second_opening_is_refused_at_once(opened: Open, tmp_path: Path) -> None:
    directory = opened()
    directory.announce("http://127.0.0.1:8400")
    program = "import sys; from pathlib import Path; from kdproxy.storage.directory import DataDirectory\n"
    program += "from kdproxy.errors import DirectoryBusy\n"
    program += (
        "try: DataDirectory.open(Path(sys.argv[1]), command='other')\nexcept DirectoryBusy as error: print(error)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "data")], capture_output=True, text=True, timeout=30, check=True
    )
    assert f"process {os.getpid()}" in ran.stdout
    assert "http://127.0.0.1:8400" in ran.stdout
    started = time.monotonic()
    with pytest.raises(DirectoryBusy):
        opened()
    assert time.monotonic() - started < 1


def test_a_closed_directory_is_free(opened: Open, tmp_path: Path) -> None:
    for _ in range(3):
        opened().close()
        assert read_owner(tmp_path / "data") is None


def test_a_newer_format_is_refused_and_nothing_is_changed(opened: Open, tmp_path: Path) -> None:
    opened().close()
    meta = tmp_path / "data" / "directory.json"
    meta.write_bytes(b'{"format":3,"upstreams":{}}')
    with pytest.raises(StorageFailed, match="format 3") as caught:
        opened()
    assert caught.value.code == "data_dir_newer"
    assert meta.read_bytes() == b'{"format":3,"upstreams":{}}'
    assert read_owner(tmp_path / "data") is None


def test_a_directory_of_format_1_is_taken_over_where_it_lies_and_changed_by_its_first_line(
    opened: Open, tmp_path: Path, make_entry: Callable[..., Entry]
) -> None:
    sample = Path(__file__).parents[2] / "data" / "journal_v1.jsonl"
    data = tmp_path / "data"
    data.mkdir()
    (data / "directory.json").write_bytes(b'{"format":1,"upstreams":{"t":"http://t"}}')
    (data / "api_recovery.jsonl").write_bytes(sample.read_bytes())
    directory = opened()
    before = directory.archive.snapshot()
    directory.remember_upstreams({"u": "http://u"})
    assert orjson.loads((data / "directory.json").read_bytes())["format"] == 1, "until a line is written"
    assert (data / "api_recovery.jsonl").read_bytes() == sample.read_bytes()
    asyncio.run(directory.archive.keep(make_entry()))
    meta = orjson.loads((data / "directory.json").read_bytes())
    assert meta == {"format": 2, "upstreams": {"t": "http://t", "u": "http://u"}}
    assert (data / "api_recovery.jsonl").read_bytes().startswith(sample.read_bytes())
    assert sum(directory.archive.snapshot().answers.values()) == sum(before.answers.values()) + 1


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null"])
def test_a_damaged_description_says_what_to_do(opened: Open, tmp_path: Path, text: bytes) -> None:
    opened().close()
    (tmp_path / "data" / "directory.json").write_bytes(text)
    with pytest.raises(StorageFailed) as caught:
        opened()
    assert caught.value.code == "data_dir_damaged"


def test_on_a_network_the_index_is_local_and_the_lock_beats(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_entry: Callable[..., Entry]
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(under_test, "is_network", lambda path: path == tmp_path / "data")
    directory = opened()
    assert directory.index_path is not None
    assert directory.index_path.is_relative_to(cache)
    assert not (tmp_path / "data" / "index").exists()
    assert stat.S_IMODE(directory.index_path.stat().st_mode) == 0o700
    assert asyncio.run(directory.archive.keep(make_entry()))
    directory.close()
    other = opened(tmp_path / "other")  # each data directory has an index of its own
    assert other.archive.find(make_entry().address, Form.JSON) is None
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another machine"))
    assert opened().archive.find(make_entry().address, Form.JSON) == make_entry().answer
