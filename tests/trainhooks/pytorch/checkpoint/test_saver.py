"""Saving beside a training: what is copied, when, and what happens when the disk refuses."""

import errno
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainhooks.core.policy import CheckpointPolicy
from trainhooks.core.retention import Best
from trainhooks.errors import CheckpointFailed
from trainhooks.pytorch.checkpoint import writing
from trainhooks.pytorch.checkpoint.saver import Saver
from trainhooks.pytorch.checkpoint.snapshot import Snapshotter
from trainhooks.pytorch.checkpoint.state import TrainingState
from trainhooks.storage.checkpoints import Checkpoint, CheckpointStore
from trainhooks.storage.draft import Draft

EVERY_STEP = CheckpointPolicy(every_steps=1, every_seconds=None, max_overhead=None)


class Gate:
    """Holds the thread that writes, before its first byte, until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()
        real = CheckpointStore.begin

        def begin(store: CheckpointStore, step: int) -> Draft:
            self.reached.set()
            assert self.opened.wait(60)
            return real(store, step)

        monkeypatch.setattr(CheckpointStore, "begin", begin)


class Job:
    """A training of one number, driven by hand."""

    def __init__(self, root: Path, policy: CheckpointPolicy = EVERY_STEP, **options: Any) -> None:
        self.model = nn.Linear(300, 300)
        self.fill(0.0)
        self.store = CheckpointStore(root, "feed")
        self.published: list[int] = []
        self.failures: list[tuple[int, str]] = []
        self.state = TrainingState({"model": self.model})
        self.saver = Saver(
            self.store,
            self.state,
            policy,
            attempt=1,
            on_published=self._note,
            on_failure=lambda step, failure: self.failures.append((step, failure)),
            **options,
        )

    def _note(self, checkpoint: Checkpoint) -> None:
        assert threading.current_thread() is threading.main_thread()
        self.published.append(checkpoint.manifest.step)

    def fill(self, value: float) -> None:
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.fill_(value)

    def step(self, number: int, metrics: dict[str, float] | None = None) -> bool:
        """Finish a step whose weights are all `number`; returns whether a save was begun."""
        self.fill(float(number))
        is_due = self.saver.is_due(number, float(number))
        if is_due:
            self.saver.begin(number, {"step": number}, metrics or {})
        return is_due

    def settle(self) -> None:
        """Wait for the thread that writes."""
        for thread in threading.enumerate():
            if thread.name == "trainhooks-checkpoint":
                thread.join(60)


def weights(path: Path) -> set[float]:
    job = Job(path)
    job.saver.restore()
    return {value for parameter in job.model.parameters() for value in parameter.flatten().tolist()}


def test_what_changes_while_it_is_written_does_not_reach_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    job = Job(tmp_path)
    assert job.step(1)
    assert gate.reached.wait(60)
    for later in range(2, 6):
        job.fill(float(later))
    gate.opened.set()
    job.saver.close()
    assert weights(tmp_path) == {1.0}


def test_the_next_snapshot_does_not_reach_an_earlier_checkpoint(tmp_path: Path) -> None:
    """Buffers are used again."""
    job = Job(tmp_path)
    for number in range(1, 6):
        job.step(number)
        job.settle()
    job.saver.close()
    for checkpoint in job.store.published():
        state, loaded = job.state, checkpoint.manifest.step
        from trainhooks.pytorch.checkpoint.saver import load

        assert load(checkpoint, state) == {"step": loaded}
        assert {v for p in job.model.parameters() for v in p.flatten().tolist()} == {float(loaded)}


def test_one_is_in_flight_and_a_save_that_falls_due_meanwhile_is_taken_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    job = Job(tmp_path, CheckpointPolicy(every_steps=2, every_seconds=None, max_overhead=None))
    begun = [number for number in range(1, 8) if job.step(number)]
    assert begun == [2]
    gate.opened.set()
    job.settle()
    assert job.step(9)  # 4 and 6 fell due meanwhile, and 9 is no multiple
    job.saver.close()
    assert job.published == [2, 9]


def test_close_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    job = Job(tmp_path)
    job.step(1)
    threading.Timer(0.05, gate.opened.set).start()
    job.saver.close()
    assert job.published == [1]
    assert weights(tmp_path) == {1.0}


def test_a_demanded_save_waits_for_the_one_before_and_is_durable_when_it_returns(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.step(1)
    job.fill(2.0)
    checkpoint = job.saver.save(2, {"step": 2}, {}, tags=("preemption",))
    assert checkpoint is not None
    assert checkpoint.manifest.tags == ("preemption",)
    assert job.published == [1, 2]
    assert weights(tmp_path) == {2.0}


def failing(monkeypatch: pytest.MonkeyPatch, error: int) -> Callable[[], None]:
    """The disk refuses from now on; returns what mends it."""
    real = os.writev
    is_broken = [True]

    def writev(descriptor: int, pieces: Any) -> int:
        if is_broken[0]:
            raise OSError(error, os.strerror(error))
        return real(descriptor, pieces)

    monkeypatch.setattr(os, "writev", writev)
    return lambda: is_broken.__setitem__(0, False)


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO, errno.EDQUOT])
def test_a_disk_that_refuses_is_reported_at_the_next_step_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: int
) -> None:
    monkeypatch.setattr(writing, "_FIRST_WAIT_SECONDS", 0.01)
    job = Job(tmp_path, CheckpointPolicy(every_steps=10, every_seconds=None, max_overhead=None))
    job.step(10)
    job.settle()
    mend = failing(monkeypatch, error)
    with caplog.at_level(logging.WARNING):
        assert job.step(20)
        while not job.failures:
            job.step(21)  # the training goes on
    assert job.failures[0][0] == 20
    assert os.strerror(error) in job.failures[0][1]
    assert "the training continues" in caplog.text
    assert weights_of_newest(job) == 10  # the earlier one is whole
    mend()
    job.settle()
    job.step(22)
    assert job.published == [10, 20]
    job.saver.close()


def weights_of_newest(job: Job) -> int:
    found = job.store.newest_good()
    assert found is not None
    return found.manifest.step


def test_while_it_waits_for_another_try_a_newer_state_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_FIRST_WAIT_SECONDS", 3600.0)
    job = Job(tmp_path, CheckpointPolicy(every_steps=10, every_seconds=None, max_overhead=None))
    mend = failing(monkeypatch, errno.ENOSPC)
    job.step(10)
    while not job.failures:
        job.step(11)
    assert not list(tmp_path.glob(".draft*"))  # what was written of it is gone: it holds no room
    mend()
    while not job.step(20):
        pass
    job.saver.close()
    assert job.published == [20]
    assert [record.step for record in job.saver.records] == [10, 20]


def test_a_demanded_save_that_fails_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_FIRST_WAIT_SECONDS", 0.01)
    job = Job(tmp_path)
    failing(monkeypatch, errno.EIO)
    with pytest.raises(CheckpointFailed, match="Input/output error"):
        job.saver.save(1, {}, {})


def test_without_a_thread_each_is_durable_before_the_training_continues(tmp_path: Path) -> None:
    policy = CheckpointPolicy(every_steps=1, every_seconds=None, asynchronous=False)
    job = Job(tmp_path, policy)
    for number in (1, 2, 3):
        assert job.step(number)
        assert weights_of_newest(job) == number
    assert job.published == [1, 2, 3]


def test_the_policy_says_what_stays(tmp_path: Path) -> None:
    policy = CheckpointPolicy(
        every_steps=1,
        every_seconds=None,
        asynchronous=False,
        keep_last=2,
        keep_best=Best(metric="loss"),
        keep_every_steps=4,
    )
    job = Job(tmp_path, policy)
    for number, loss in enumerate([5.0, 1.0, float("nan"), 3.0, 2.0, 9.0, 8.0], start=1):
        job.step(number, {"loss": loss})
    assert [each.manifest.step for each in job.store.published()] == [2, 4, 6, 7]


def test_how_long_the_training_stood_still_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    job = Job(tmp_path)
    job.step(1)
    blocked = job.saver.records[0].blocked_seconds
    assert gate.reached.wait(60)
    gate.opened.set()
    job.saver.close()
    record = job.saver.records[0]
    assert 0 < blocked == record.blocked_seconds
    assert record.written_seconds > 0
    assert record.size_bytes > 300 * 300 * 4


def test_records_are_durable_before_the_checkpoint_that_follows_from_them(tmp_path: Path) -> None:
    seen: list[list[Path]] = []
    job = Job(tmp_path, before_publish=lambda: seen.append(list(tmp_path.glob("step-*"))))
    job.step(1)
    job.saver.close()
    assert seen == [[]]


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.randn(7, 5),
        lambda: torch.randn(7, 5).t(),
        lambda: torch.randn(3, dtype=torch.complex64).conj(),
        lambda: torch.zeros(0, 3),
        lambda: torch.tensor(3),
        lambda: torch.randn(9).to(torch.float8_e5m2),
        lambda: torch.randn(4).expand(3, 4),
    ],
)
def test_a_snapshot_is_a_copy_of_any_tensor(make: Callable[[], torch.Tensor]) -> None:
    tensor, other = make(), torch.arange(5)
    wanted = tensor.clone(memory_format=torch.contiguous_format)
    snapshotter = Snapshotter()
    taken = snapshotter.take([tensor, other])
    if tensor.numel() and tensor.dtype != torch.float8_e5m2:
        tensor.untyped_storage().fill_(0)
    found = taken.wait()
    assert found[0].is_contiguous()
    assert found[0].dtype == wanted.dtype
    assert found[0].shape == wanted.shape
    assert (
        found[0]
        .view(torch.uint8 if wanted.dim() else wanted.dtype)
        .equal(wanted.resolve_conj().view(torch.uint8 if wanted.dim() else wanted.dtype))
    )
    assert found[1].equal(other)
    again = snapshotter.take([torch.ones(100, 100), torch.ones(1)]).wait()  # another layout, a larger buffer
    assert again[0].eq(1).all()
