"""The index of a directory on a network lies where no other user can have prepared it, or in memory."""

import asyncio
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from kdproxy.core.models import Entry, Form
from kdproxy.storage import cache_directory, directory
from kdproxy.storage.cache_directory import NotPrivate, find_private, make_private
from kdproxy.storage.directory import DataDirectory
from kdproxy.storage.memory import MemoryStore

ONLY_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away")
MakeEntry = Callable[..., Entry]


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The three places that are tried, in order; the last is shared, as /tmp is."""
    places = {name: tmp_path / name for name in ("cache", "home", "tmp")}
    for path in places.values():
        path.mkdir(mode=0o700)
    places["tmp"].chmod(0o1777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(places["cache"]))
    monkeypatch.setenv("HOME", str(places["home"]))
    monkeypatch.setattr(cache_directory.tempfile, "gettempdir", lambda: str(places["tmp"]))
    return places


def on_network(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    monkeypatch.setattr(cache_directory, "is_network", lambda path: any(path.is_relative_to(each) for each in paths))


def found(places: dict[str, Path], data: str = "/net/data") -> str | None:
    path, _ = find_private(Path(data))
    if path is None:
        return None
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    return next(name for name, place in places.items() if path.is_relative_to(place))


def test_the_first_place_that_is_not_on_a_network_is_taken(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert found(places) == "cache"
    on_network(monkeypatch, places["cache"])
    assert found(places) == "home"
    on_network(monkeypatch, places["cache"], places["home"])
    assert found(places) == "tmp"
    assert found(places) == "tmp"  # and again: it is ours
    on_network(monkeypatch, *places.values())
    assert found(places) is None


def test_each_data_directory_has_its_own(places: dict[str, Path]) -> None:
    assert len({find_private(Path(name))[0] for name in ("/net/a", "/net/b", "/net/a")}) == 2


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_no_umask_opens_it(places: dict[str, Path], umask: int) -> None:
    old = os.umask(umask)
    try:
        assert found(places) == "cache"
    finally:
        os.umask(old)


@pytest.mark.parametrize("how", ["link", "file", "group", "world", pytest.param("owner", marks=ONLY_ROOT)])
@pytest.mark.parametrize("depth", ["upper", "lower"])
def test_what_another_may_have_prepared_is_neither_used_nor_changed(
    places: dict[str, Path], tmp_path: Path, how: str, depth: str
) -> None:
    """In /tmp the name can be known before: it holds the user's number and the path's digest."""
    path, _ = find_private(Path("/net/data"))
    assert path is not None
    prepared = path if depth == "lower" else path.parent
    target = tmp_path / "of the other"
    prepared.rename(target)
    match how:
        case "link":
            prepared.symlink_to(target)
        case "file":
            prepared.write_text("x")
        case "group" | "world":
            prepared.mkdir()
            prepared.chmod(0o770 if how == "group" else 0o707)
        case "owner":
            prepared.mkdir(mode=0o700)
            os.chown(prepared, 12345, 12345)
    before = prepared.lstat()
    with pytest.raises(NotPrivate, match=str(prepared)):
        make_private(prepared)
    path, passed_over = find_private(Path("/net/data"))
    assert path is not None
    assert path.is_relative_to(places["home"])
    assert str(prepared) in passed_over[0]
    assert prepared.lstat() == before


def test_a_place_where_others_can_rename_ours_is_passed_over(places: dict[str, Path]) -> None:
    places["cache"].chmod(0o777)
    assert found(places) == "home"
    places["cache"].chmod(0o1777)
    assert found(places) == "cache"


def test_what_an_earlier_release_made_is_used_again(places: dict[str, Path]) -> None:
    upper = places["cache"] / f"kdproxy-{os.getuid()}"
    upper.mkdir()
    upper.chmod(0o755)
    path, passed_over = find_private(Path("/net/data"))
    assert path is not None
    assert (path.parent, passed_over) == (upper, [])


def test_a_relative_or_empty_cache_home_is_none(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        assert found(places) == "home"
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError))
    assert found(places) == "tmp"


def test_without_a_safe_place_the_index_is_in_memory_and_says_so(
    places: dict[str, Path],
    tmp_path: Path,
    make_entry: MakeEntry,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = tmp_path / "data"
    monkeypatch.setattr(directory, "is_network", lambda path: path == data)
    for place in places.values():
        (place / f"kdproxy-{os.getuid()}").write_text("in the way")
    (places["home"] / ".cache").mkdir()
    (places["home"] / ".cache" / f"kdproxy-{os.getuid()}").write_text("in the way")
    for _ in range(2):
        opened = DataDirectory.open(data, command="test")
        assert opened.index_path is None
        assert isinstance(opened.archive._store, MemoryStore)
        assert asyncio.run(opened.archive.keep(make_entry()))
        assert opened.archive.find(make_entry().address, Form.JSON) == make_entry().answer
        opened.close()
    assert caplog.text.count("kept in memory") == 2
    assert not (data / "index").exists()
