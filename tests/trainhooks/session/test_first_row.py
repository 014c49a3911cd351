"""What a loop with checkpoints of its own records first after a save is on the medium at once."""

import time
from pathlib import Path

import pytest

from trainhooks import ProgressTracker
from trainhooks.session import recorder
from trainhooks.storage import atomic
from trainhooks.storage.metrics import NAME, read_metrics


def test_the_first_row_after_a_save_does_not_wait_for_its_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "_WAKE_SECONDS", 3_600.0)
    synced: list[int] = []
    sync = atomic.sync_file
    monkeypatch.setattr(atomic, "sync_file", lambda descriptor: (synced.append(descriptor), sync(descriptor))[1])
    tracker = ProgressTracker({}, tmp_path, 10, database=False)
    tracker.update_metrics(0, loss=0.5)
    (tmp_path / "mine.pt").touch()
    tracker.record_checkpoint(tmp_path / "mine.pt", step=1)
    synced.clear()
    tracker.update_metrics(1, loss=0.25)
    end = time.monotonic() + 30
    while not synced:
        assert time.monotonic() < end
        time.sleep(0.005)
    assert [row["loss"] for row in read_metrics(tmp_path / "progress" / NAME)] == [0.5, 0.25]
    synced.clear()
    tracker.update_metrics(2, loss=0.125)
    assert len(read_metrics(tmp_path)) == 2, "later rows wake nobody"
    tracker.close()
