"""What a power cut would leave: no checkpoint is visible before the rows that it follows from are on the medium."""

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainhooks import CheckpointPolicy, training_progress_context
from trainhooks.storage import atomic

TOTAL, EVERY = 12, 3


class Medium:
    """Watches which bytes of metrics.jsonl are synced, and what they are when a checkpoint becomes visible."""

    def __init__(self, metrics: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.metrics = metrics
        self.durable = 0
        self.seen: list[tuple[str, list[int]]] = []
        """(checkpoint, steps whose rows a power cut would have left at the moment of its renaming)."""
        self._sync, self._rename = atomic.sync_file, os.rename
        monkeypatch.setattr(atomic, "sync_file", self.sync)
        monkeypatch.setattr(os, "rename", self.rename)

    def sync(self, descriptor: int) -> None:
        written = os.fstat(descriptor)
        self._sync(descriptor)
        if os.path.samestat(written, self.metrics.stat()):
            self.durable = written.st_size

    def rename(self, source: Any, target: Any, **options: Any) -> None:
        if Path(target).name.startswith("step-"):
            lines = [json.loads(line) for line in self.metrics.read_bytes()[: self.durable].splitlines()]
            self.seen.append((Path(target).name, [line["step"] for line in lines if "loss" in line]))
        self._rename(source, target, **options)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_rows_are_synced_before_their_checkpoint_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asynchronous: bool
) -> None:
    medium = Medium(tmp_path / "progress" / "metrics.jsonl", monkeypatch)
    model = nn.Linear(2, 1)
    policy = CheckpointPolicy(every_steps=EVERY, every_seconds=None, asynchronous=asynchronous, max_overhead=None)
    with training_progress_context({}, tmp_path, TOTAL, state={"model": model}, checkpoints=policy) as progress:
        progress.loader(torch.ones(8, 2), batch_size=2)
        for step, batch in progress.steps():
            progress.update_metrics(step, loss=model(batch).sum())
        progress.save_checkpoint(tags=("on demand",))
    assert len(medium.seen) >= 2
    for name, rows in medium.seen:
        finished = int(name.removeprefix("step-").split("-")[0])
        assert rows[:finished] == list(range(finished)), f"{name} was visible with rows of {rows} alone"


def test_the_names_of_new_folders_and_files_are_durable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut takes a whole checkpoint, or an answer that was paid for, with the folder that it is in."""
    named: set[Path] = set()
    sync = atomic.sync_directory

    def watch(path: Path) -> None:
        sync(path)
        named.update(path.iterdir())

    monkeypatch.setattr(atomic, "sync_directory", watch)
    out = tmp_path / "runs" / "a"
    with training_progress_context({}, out, TOTAL, state={"model": nn.Linear(2, 1)}, database=False) as progress:
        progress.record_api_response("question", "answer", model="teacher")
        assert out / "progress" / "api_recovery.jsonl" in named
        progress.update_metrics(0, loss=1.0)
        progress.save_checkpoint()
    expected = [out.parent, out, out / "progress", out / "checkpoints", out / "progress" / "metrics.jsonl"]
    assert set(expected) <= named


def test_the_training_waits_for_no_medium_where_a_checkpoint_is_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait behind the gigabytes of that checkpoint."""
    waited: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        if threading.current_thread() is threading.main_thread():
            waited.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    policy = CheckpointPolicy(every_steps=EVERY, every_seconds=None, max_overhead=None)
    state = {"model": nn.Linear(2, 1)}
    listed = tmp_path / "progress" / "checkpoints.json"
    with training_progress_context({}, tmp_path, TOTAL, state=state, checkpoints=policy, database=False) as progress:
        progress.loader(torch.ones(8, 2), batch_size=2)
        for step, _ in progress.steps():
            if step == 0:  # the attempt has been written down
                monkeypatch.setattr(os, "fsync", watched)
            if step == EVERY:
                while any(each.name == "trainhooks-checkpoint" for each in threading.enumerate()):
                    time.sleep(0.01)
            if step == TOTAL - 1:  # the last one is waited for
                monkeypatch.undo()
                assert len(json.loads(listed.read_bytes())["checkpoints"]) >= 1
    assert waited == []
