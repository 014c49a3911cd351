"""A disk that is really full: a small file system in memory, mounted for the test. Wants root."""

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from trainhooks.core.policy import CheckpointPolicy
from trainhooks.pytorch.checkpoint import writing
from trainhooks.pytorch.checkpoint.saver import Saver
from trainhooks.pytorch.checkpoint.state import TrainingState
from trainhooks.storage.checkpoints import CheckpointStore

pytestmark = pytest.mark.faults
MEGABYTE = 1_000_000


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """4 MB of room."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4000k", "tmpfs", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


@pytest.mark.parametrize("is_noticed_before", [True, False])
def test_the_training_continues_and_the_save_is_made_once_there_is_room(
    disk: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, is_noticed_before: bool
) -> None:
    monkeypatch.setattr(writing, "_FIRST_WAIT_SECONDS", 0.05)
    if not is_noticed_before:  # others may fill a disk after we have looked
        monkeypatch.setattr(CheckpointStore, "require_space", lambda store, size: store.root.mkdir(exist_ok=True))
    model = nn.Linear(500, 500)  # 1 MB
    store = CheckpointStore(disk / "checkpoints", "feed")
    policy = CheckpointPolicy(every_steps=10, every_seconds=None, max_overhead=None)
    failures: list[str] = []
    published: list[int] = []
    saver = Saver(
        store,
        TrainingState({"model": model}),
        policy,
        attempt=1,
        on_failure=lambda step, failure: failures.append(failure),
        on_published=lambda checkpoint: published.append(checkpoint.manifest.step),
    )
    saver.save(10, None, {})
    (disk / "ballast").write_bytes(bytes(2_500_000))
    with torch.no_grad(), caplog.at_level(logging.WARNING):
        model.weight.fill_(20.0)
        assert saver.is_due(20, 20.0)
        saver.begin(20, None, {})
        while not failures:
            saver.is_due(21, 21.0)
        model.weight.fill_(21.0)
    assert ("MB free" if is_noticed_before else "No space left") in failures[0]
    found = store.newest_good()
    assert found is not None
    assert found.manifest.step == 10
    (disk / "ballast").unlink()
    while 20 not in published:
        saver.is_due(21, 21.0)
    saver.close()
    assert saver.restore() is None  # no progress was given; the weights are what tells
    assert bool((model.weight == 20.0).all())
