"""`lanes.json` on disk."""

import logging
import os
from pathlib import Path

import orjson
import pytest

from kdproxy.core.pacing.memory import Learned, Remembered
from kdproxy.storage.lane_memory import NAME, LaneMemory

NOW = 1_800_000_000.0
LANE = Remembered(upstream="u", credential="c", model="m", learned=Learned(rate=2.0), at=NOW)


def test_what_is_saved_is_there_at_the_next_start(tmp_path: Path) -> None:
    memory = LaneMemory(tmp_path, now=NOW)
    assert memory.lanes == ()
    memory.save([LANE])
    again = LaneMemory(tmp_path, now=NOW + 1)
    assert again.lanes == (LANE,)
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_nothing_is_written_where_nothing_was_learned(tmp_path: Path) -> None:
    LaneMemory(tmp_path, now=NOW).save([])
    assert list(tmp_path.iterdir()) == []


def test_the_same_is_not_written_again(tmp_path: Path) -> None:
    memory = LaneMemory(tmp_path, now=NOW)
    memory.save([LANE])
    before = (tmp_path / NAME).stat().st_ino
    memory.save([LANE])
    assert (tmp_path / NAME).stat().st_ino == before


def test_what_a_kill_left_is_no_hindrance(tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.new").write_bytes(b"half")
    LaneMemory(tmp_path, now=NOW).save([LANE])
    assert LaneMemory(tmp_path, now=NOW).lanes == (LANE,)


def test_what_is_damaged_is_begun_anew_and_what_is_newer_is_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"{")
    with caplog.at_level(logging.WARNING):
        LaneMemory(tmp_path, now=NOW).save([LANE])
    assert "damaged" in caplog.text
    newer = orjson.dumps({**orjson.loads(path.read_bytes()), "version": 2})
    path.write_bytes(newer)
    memory = LaneMemory(tmp_path, now=NOW)
    assert memory.lanes == ()
    memory.save([LANE])
    assert path.read_bytes() == newer


def test_a_disk_that_refuses_costs_a_log_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object, **more: object) -> int:
        raise OSError(28, "No space left on device")

    memory = LaneMemory(tmp_path, now=NOW)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        memory.save([LANE])
    assert "not saved" in caplog.text
    memory.save([LANE])
    assert LaneMemory(tmp_path, now=NOW).lanes == (LANE,)
