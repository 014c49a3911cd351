"""session.json, progress.json and checkpoints.json."""

import json
from pathlib import Path

import pytest

from trainhooks.errors import SessionInvalid
from trainhooks.storage import catalog, session, snapshot
from trainhooks.storage.catalog import Catalog, Recoverable
from trainhooks.storage.session import SessionFile


def test_a_session_keeps_its_id_and_counts_attempts(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    first = SessionFile(path, {"lr": 1}, 10)
    assert first.begin(at_least=1) == 1
    first.write()
    second = SessionFile(path, {"lr": 2}, 20)
    assert second.session_id == first.session_id
    assert second.begin(at_least=1) == 2
    assert second.previous is not None
    assert second.previous["config"] == {"lr": 1}
    assert second.members["config"] == {"lr": 2}


def test_members_that_others_added_stay(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    first = SessionFile(path, {}, 10)
    first.members["provenance"] = {"git": "abc"}
    first.write()
    assert SessionFile(path, {}, 10).members["provenance"] == {"git": "abc"}


@pytest.mark.parametrize(
    "text", [b"", b'{"v": 1, "session_id": "a', b"[]", b"{}", b'{"v":1,"session_id":"a","attempts":3}']
)
def test_half_a_file_is_a_clear_error_and_stays(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "session.json"
    path.write_bytes(text)
    with pytest.raises(SessionInvalid, match="damaged") as caught:
        SessionFile(path, {}, 10)
    assert "move it away" in caught.value.hint
    assert path.read_bytes() == text


def test_a_newer_version_is_not_guessed_at(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    path.write_text(json.dumps({"v": 2, "session_id": "a", "attempts": []}))
    with pytest.raises(SessionInvalid, match="version 2"):
        session.read(path)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"v": 9}'])
def test_a_damaged_snapshot_is_none(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "progress.json").write_bytes(text)
    assert snapshot.read(tmp_path / "progress.json") is None


def entry(path: str, step: int, *tags: str) -> Recoverable:
    return Recoverable(path=path, step=step, created_at=1.0, tags=tags, is_registered=True, metrics={"loss": 0.5})


def test_registered_files_come_back(tmp_path: Path) -> None:
    (tmp_path / "progress").mkdir()
    first = Catalog(tmp_path)
    first.register(entry("b.pt", 20, "late"))
    first.register(entry("a.pt", 10, "early"))
    first.register(entry("a.pt", 11, "early", "again"))
    first.write()
    assert Catalog(tmp_path).entries() == [entry("a.pt", 11, "early", "again"), entry("b.pt", 20, "late")]


def test_the_newest_that_is_there_and_has_the_tag(tmp_path: Path) -> None:
    (tmp_path / "progress").mkdir()
    listing = Catalog(tmp_path)
    for step, (name, tag) in enumerate([("a.pt", "x"), ("b.pt", "y"), ("c.pt", "x"), ("gone.pt", "x")]):
        listing.register(entry(name, step, tag))
        if name != "gone.pt":
            (tmp_path / name).write_bytes(b"weights")
    listing.write()
    assert catalog.newest(tmp_path) == tmp_path / "c.pt"
    assert catalog.newest(tmp_path, "y") == tmp_path / "b.pt"
    assert catalog.newest(tmp_path, "none") is None
