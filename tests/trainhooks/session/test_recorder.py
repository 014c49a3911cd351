"""When records reach the medium."""

import os
import time
from pathlib import Path

import pytest

from trainhooks import ProgressTracker, read_metrics
from trainhooks.storage import atomic


def test_rows_are_synced_within_five_seconds_and_at_a_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[float, str]] = []
    sync = atomic.sync_file

    def watched(descriptor: int) -> None:
        sync(descriptor)
        synced.append((time.monotonic(), Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))

    tracker = ProgressTracker({}, tmp_path, 10)
    tracker.update_metrics(0, loss=1.0)
    tracker.flush()
    monkeypatch.setattr(atomic, "sync_file", watched)
    tracker.update_metrics(0, loss=1.0)
    recorded = time.monotonic()
    while not synced and time.monotonic() < recorded + 6:
        time.sleep(0.05)
    assert [name for _, name in synced] == ["metrics.jsonl"]
    assert synced[0][0] - recorded < 5.0
    tracker.update_metrics(1, loss=1.0)
    tracker.flush()
    assert len(synced) == 2
    tracker.flush()
    assert len(synced) == 2, "nothing new, nothing to wait for"
    tracker.close()


def test_a_number_beyond_all_others_holds_up_no_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It ended the thread that writes, and what came after it was on no disk until the end."""
    tracker = ProgressTracker({}, tmp_path, 10)
    tracker.update_metrics(0, loss=1.0, beyond_floats=10**400)
    tracker.update_metrics(1, loss=1.0, beyond_text=10**5_000)
    tracker.update_metrics(2, loss=1.0)
    end = time.monotonic() + 6
    while not (rows := read_metrics(tmp_path)) and time.monotonic() < end:
        time.sleep(0.05)
    tracker.close()
    assert [row["step"] for row in rows] == [0, 2]
    assert rows[0]["beyond_floats"] == 10**400
    assert "what was recorded of step 1 is lost (ValueError" in caplog.text
