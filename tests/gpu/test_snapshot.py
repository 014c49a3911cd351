"""A snapshot of CUDA tensors holds one moment, waits for nothing and comes back where it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainhooks.core.policy import CheckpointPolicy
from trainhooks.pytorch import rng
from trainhooks.pytorch.checkpoint import cuda, device_copy, packing
from trainhooks.pytorch.checkpoint.saver import Saver, load
from trainhooks.pytorch.checkpoint.snapshot import Snapshotter
from trainhooks.pytorch.checkpoint.state import TrainingState
from trainhooks.storage.checkpoints import Checkpoint, CheckpointStore

WIDTH = 2048


def busy() -> None:
    """Work that takes the GPU some 100 ms: what is launched behind it is still to come when the host goes on."""
    a = torch.randn(8192, 8192, device="cuda")
    for _ in range(5):
        a = a @ a * 1e-4


def check_no_leak(*, use_device_copy: bool) -> None:
    tensors = [torch.zeros(WIDTH, WIDTH, device="cuda") for _ in range(20)]
    tensors += [torch.zeros(64, 32, device="cuda").t(), torch.zeros((), device="cuda"), torch.zeros(7)]
    snapshotter = Snapshotter(use_device_copy=use_device_copy)
    for moment in range(1, 6):
        busy()
        for tensor in tensors:
            tensor.fill_(moment)
        taken = snapshotter.take(tensors)
        for _ in range(3):  # the updates after it, launched before anything of it has happened
            for tensor in tensors:
                tensor.add_(100.0)
        for tensor, copy in zip(tensors, taken.wait(), strict=True):
            assert copy.device.type == "cpu"
            assert copy.shape == tensor.shape
            assert bool((copy == moment).all()), (moment, copy.unique())


def test_updates_after_a_snapshot_on_the_device_do_not_reach_it(tmp_path: Path) -> None:
    check_no_leak(use_device_copy=True)


def test_updates_after_a_snapshot_straight_to_the_host_do_not_reach_it(tmp_path: Path) -> None:
    check_no_leak(use_device_copy=False)


def test_it_holds_what_was_launched_before_it_on_another_current_stream(tmp_path: Path) -> None:
    stream = torch.cuda.Stream()
    for use_device_copy in (True, False):
        snapshotter = Snapshotter(use_device_copy=use_device_copy)
        with torch.cuda.stream(stream):
            tensor = torch.zeros(WIDTH, WIDTH, device="cuda")
            busy()
            tensor.fill_(3.0)
            taken = snapshotter.take([tensor])
            tensor.fill_(4.0)
            assert bool((taken.wait()[0] == 3.0).all())


def test_without_room_it_goes_straight_to_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "_SPARE_BYTES", 1 << 60)
    tensor = torch.full((WIDTH, WIDTH), 5.0, device="cuda")
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    snapshotter = Snapshotter()
    taken = snapshotter.take([tensor])
    assert torch.cuda.memory_allocated() == before
    tensor.zero_()
    assert bool((taken.wait()[0] == 5.0).all())


def test_without_room_little_memory_is_pinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the layout and the size of the state, and again at the next save."""
    monkeypatch.setattr(cuda, "_SPARE_BYTES", 1 << 60)
    pinned, real = [], cuda.StreamTransport.buffer

    def buffer(transport: cuda.StreamTransport, size_bytes: int) -> torch.Tensor:
        pinned.append(size_bytes)
        return real(transport, size_bytes)

    monkeypatch.setattr(cuda.StreamTransport, "buffer", buffer)
    tensors = [torch.randn(64 << 20, device="cuda"), torch.randn(8192, 4096, device="cuda").t()]
    tensors += [torch.randn(64, 64, 3, 3, device="cuda").to(memory_format=torch.channels_last) for _ in range(40)]
    tensors += [torch.randn(7, device="cuda").bfloat16() for _ in range(300)]
    snapshotter = Snapshotter()
    for _ in range(3):
        busy()
        for tensor in tensors:
            tensor.add_(1.0)
        wanted = [tensor.cpu() for tensor in tensors]
        taken = snapshotter.take(tensors)
        for tensor in tensors:
            tensor.zero_()
        assert all(map(torch.equal, taken.wait(), wanted))
    assert sum(pinned) <= 128 << 20


def test_out_of_memory_for_the_copy_goes_straight_to_the_host_and_is_reported_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Another process may take what was free a moment ago."""
    caplog.set_level("INFO", "trainhooks")
    tensors = [torch.full((WIDTH, WIDTH), 5.0, device="cuda") for _ in range(8)]
    before, real, calls = torch.cuda.memory_allocated(), device_copy.take_memory, []

    def take_memory(storage: torch.UntypedStorage, size_bytes: int) -> None:
        calls.append(size_bytes)
        if len(calls) % 2 == 0:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        real(storage, size_bytes)

    monkeypatch.setattr(packing, "_LEAST_BLOCK_BYTES", WIDTH * WIDTH * 8)
    monkeypatch.setattr(device_copy, "take_memory", take_memory)
    snapshotter = Snapshotter()
    for value in (6.0, 7.0):
        taken = snapshotter.take(tensors)
        assert torch.cuda.memory_allocated() == before, "what was taken before it is returned"
        for tensor in tensors:
            tensor.fill_(value)
        assert all(bool((copy == value - 1).all()) for copy in taken.wait())
    assert len([line for line in caplog.messages if "no room for a second copy" in line]) == 1


def test_the_copy_on_the_device_is_returned_once_it_is_on_the_host(tmp_path: Path) -> None:
    tensors = [torch.ones(WIDTH, WIDTH, device="cuda")]
    size = tensors[0].nbytes
    snapshotter = Snapshotter()
    before = torch.cuda.memory_allocated()
    places = set()
    for moment in range(3):
        tensors[0].fill_(moment)
        taken = snapshotter.take(tensors)
        assert torch.cuda.memory_allocated() >= before + size
        [found] = taken.wait()
        snapshotter._lane(tensors[0].device).finish()
        assert torch.cuda.memory_allocated() == before
        assert bool((found == moment).all())
        places.add(found.data_ptr())
    assert len(places) == 1, "the host's buffer is used again"
    held = torch.cuda.memory_reserved()
    snapshotter.take(tensors).wait()
    assert torch.cuda.memory_reserved() == held, "torch keeps the memory for the next copy until something wants it"


def test_what_the_copy_held_is_there_for_a_training_that_fills_the_device(tmp_path: Path) -> None:
    """A later out-of-memory is not ours."""
    free, _ = torch.cuda.mem_get_info()
    tensor = torch.ones(free // 16, device="cuda")  # a quarter
    Snapshotter().take([tensor]).wait()
    torch.cuda.synchronize()
    filled = torch.empty(int(free * 0.7), dtype=torch.uint8, device="cuda")
    assert filled.numel() > free // 2
    del tensor, filled
    torch.cuda.empty_cache()


def training(device: str) -> dict[str, Any]:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(64, 64), nn.Dropout(0.1), nn.Linear(64, 1)).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    return {"model": model, "optimizer": optimizer, "scheduler": scheduler}


def step(objects: dict[str, Any], device: str) -> None:
    objects["model"](torch.ones(4, 64, device=device)).sum().backward()
    objects["optimizer"].step()
    objects["optimizer"].zero_grad()
    objects["scheduler"].step()


def save(root: Path, objects: dict[str, Any], around: Callable[[], None] = lambda: None) -> Checkpoint:
    saver = Saver(CheckpointStore(root, "feed"), TrainingState(objects), CheckpointPolicy(), attempt=1)
    saver.begin(1, None, {})
    saver.close()
    around()
    saver.begin(2, None, {})
    around()
    saver.close()
    found = saver.records[-1].checkpoint
    assert found is not None, saver.records[-1].failures
    return found


def test_beginning_a_save_does_not_wait(tmp_path: Path, wait_mode: Callable[[str], None]) -> None:
    """No synchronising call in the training's thread, the first save apart, which makes the buffers."""
    objects = training("cuda")
    step(objects, "cuda")
    modes = iter(("error", "default"))
    save(tmp_path, objects, lambda: wait_mode(next(modes)))


def test_what_was_on_the_gpu_comes_back_there(tmp_path: Path) -> None:
    live, other = training("cuda"), training("cuda")
    step(live, "cuda")
    load(save(tmp_path, live), TrainingState(other))
    for saved, found in zip(tensors_of(live), tensors_of(other), strict=True):
        assert saved.device == found.device
        assert torch.equal(saved, found)
    for _ in range(3):
        numbers = rng.capture()
        step(live, "cuda")
        rng.restore(numbers)
        step(other, "cuda")
    assert all(map(torch.equal, tensors_of(live), tensors_of(other)))


def test_what_was_saved_on_the_gpu_is_loaded_on_the_cpu(tmp_path: Path) -> None:
    live, other = training("cuda"), training("cpu")
    step(live, "cuda")
    load(save(tmp_path, live), TrainingState(other))
    for saved, found in zip(tensors_of(live), tensors_of(other), strict=True):
        assert found.device.type == "cpu"
        assert torch.equal(saved.cpu(), found)
    step(other, "cpu")


def tensors_of(objects: dict[str, Any]) -> list[torch.Tensor]:
    state = objects["optimizer"].state_dict()["state"]
    return [
        *objects["model"].state_dict().values(),
        *(each for entry in state.values() for each in entry.values() if isinstance(each, torch.Tensor)),
    ]


def test_random_numbers_of_every_device_come_back(tmp_path: Path) -> None:
    devices = range(torch.cuda.device_count())
    for device in devices:
        torch.rand(device + 1, device=f"cuda:{device}")
    checkpoint = save(tmp_path, {})
    wanted = [torch.rand(3, device=f"cuda:{device}").tolist() for device in devices]
    load(checkpoint, TrainingState({}))
    assert [torch.rand(3, device=f"cuda:{device}").tolist() for device in devices] == wanted
