"""Where a run's experiment database is."""

import os
from pathlib import Path

import pytest

from trainhooks.storage.workspace import DATABASE, locate, usual, workspace


def test_runs_beside_one_another_share_a_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    assert workspace(tmp_path / "runs" / "a") == tmp_path / "runs"
    monkeypatch.chdir(tmp_path)
    assert workspace(Path("runs/a")) == workspace(Path("runs/b")) == tmp_path / "runs"
    assert workspace(Path("training_output")) == tmp_path


def test_a_run_that_has_its_place_to_itself_keeps_it(
    tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert workspace(Path("/data")) == Path("/data")
    assert workspace(small_disk) == small_disk
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    assert workspace(shared / "a") == shared / "a"
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    assert workspace(Path(".")) == tmp_path / "here" / "below"
    assert workspace(Path("..")) == tmp_path / "here"


def test_a_place_that_cannot_be_written_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    assert workspace(tmp_path / "a") == tmp_path / "a"


def test_what_is_named_is_taken(tmp_path: Path) -> None:
    assert locate(False, tmp_path) is None
    assert locate(True, tmp_path / "a") == tmp_path / DATABASE
    assert locate(tmp_path, tmp_path / "a") == tmp_path / DATABASE
    assert locate(tmp_path / "mine.db", tmp_path / "a") == tmp_path / "mine.db"


def test_the_usual_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert usual() == Path(DATABASE)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / DATABASE).touch()
    assert usual() == Path("runs") / DATABASE
    (tmp_path / DATABASE).touch()
    assert usual() == Path(DATABASE)
