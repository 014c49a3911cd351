"""The places of a device's copy are kept between saves, their memory is not. The host stands in for the device."""

import threading
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainhooks.pytorch.checkpoint import device_copy, packing
from trainhooks.pytorch.checkpoint.device_copy import DeviceCopy
from trainhooks.pytorch.checkpoint.packing import Packing
from trainhooks.pytorch.checkpoint.snapshot import Snapshotter
from trainhooks.pytorch.checkpoint.staging import Ring, Transfer

HOST = torch.device("cpu")


def tensors() -> list[Tensor]:
    return [
        torch.randn(7, 5),
        torch.randn(7, 5).t(),
        torch.zeros(0, 3),
        torch.tensor(3),
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.randn(3, dtype=torch.complex64).conj().imag,
        torch.randn(1, dtype=torch.complex64).conj().imag,
        torch.randn(5)[::5],
        torch.randn(9).to(torch.float8_e5m2),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.randn(5, 5).bfloat16(),
        torch.tensor([True, False, True]),
        torch.tensor([1, 65535], dtype=torch.uint16),
        torch.randn(4).expand(3, 4),
        torch.randn(11),
        torch.tensor(2.5),
    ]


def plain(tensor: Tensor) -> Tensor:
    return tensor.detach().resolve_conj().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def held(copy: DeviceCopy) -> int:
    return sum(block.untyped_storage().nbytes() for block in copy.blocks)


def check(copy: DeviceCopy, wanted: list[Tensor]) -> None:
    found = copy.packing.views(copy.blocks)
    assert all(torch.equal(plain(view), each) for view, each in zip(found, wanted, strict=True))


@pytest.mark.parametrize("alone_bytes", [1, 60, 1 << 20])
@pytest.mark.parametrize("block_bytes", [1, 64, 1 << 20])
def test_every_save_holds_the_values_of_now(
    monkeypatch: pytest.MonkeyPatch, block_bytes: int, alone_bytes: int
) -> None:
    monkeypatch.setattr(packing, "_LEAST_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(packing, "_MOST_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(device_copy, "_ALONE_BYTES", alone_bytes)
    copy = DeviceCopy(Packing(tensors()), HOST)
    for _ in range(3):
        live = tensors()  # other memory, and of one layout
        live[0] = live[0].t().contiguous().t()  # once contiguous, then not
        wanted = [plain(each) for each in live]
        copy.fill(live)
        for each in live:
            if each.stride() == each.contiguous().stride():
                each.zero_()
        check(copy, wanted)
        copy.let_go()
        assert held(copy) == 0


def test_places_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes the time of the training's thread at each save is Python for each tensor."""
    live = [torch.randn(each % 7 + 1) for each in range(300)]
    copy = DeviceCopy(Packing(live), HOST)
    copy.fill(live)
    copy.let_go()
    calls: list[int] = []
    real = torch._foreach_copy_

    def foreach_copy(places: list[Tensor], sources: list[Tensor]) -> None:
        calls.append(len(places))
        real(places, sources)

    monkeypatch.setattr(torch, "_foreach_copy_", foreach_copy)
    monkeypatch.setattr(Packing, "views", None)
    copy.fill([torch.ones_like(each) for each in live])
    assert calls == [300], "one launch for all of one dtype"


def test_a_copy_without_room_holds_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_LEAST_BLOCK_BYTES", 64)
    monkeypatch.setattr(packing, "_MOST_BLOCK_BYTES", 64)
    live = [torch.randn(16) for _ in range(4)]
    copy, real, calls = DeviceCopy(Packing(live), HOST), device_copy.take_memory, []

    def take(storage: torch.UntypedStorage, size_bytes: int) -> None:
        calls.append(storage)
        if len(calls) in (3, 9):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
        real(storage, size_bytes)

    monkeypatch.setattr(device_copy, "take_memory", take)
    for fails in (True, False, True, False):  # the first time, and once places are there
        if fails:
            with pytest.raises(torch.cuda.OutOfMemoryError):
                copy.fill(live)
            assert [each.nbytes() for each in calls] == [0] * len(calls)
        else:
            copy.fill(live)
            check(copy, [plain(each) for each in live])
            copy.let_go()


class Waiting:
    """Sends a piece when it is waited for, and that once the gate is open."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.fails = False

    def buffer(self, size_bytes: int) -> Tensor:
        return torch.empty(size_bytes, dtype=torch.uint8)

    def send(self, source: Tensor, target: Tensor) -> Callable[[], None]:
        def wait() -> None:
            assert self.gate.wait(60)
            if self.fails:
                raise RuntimeError("an illegal memory access was encountered")
            target.copy_(source)

        return wait


@pytest.mark.parametrize("end", ["arrives", "fails", "never begins"])
def test_its_memory_leaves_as_it_comes_to_the_host(monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    monkeypatch.setattr(packing, "_LEAST_BLOCK_BYTES", 64)
    monkeypatch.setattr(packing, "_MOST_BLOCK_BYTES", 64)
    live = [torch.randn(16) for _ in range(4)]
    copy, transport = DeviceCopy(Packing(live), HOST), Waiting()
    for _ in range(2):
        copy.fill(live)
        assert held(copy) == 4 * 64
        targets = [torch.zeros(64, dtype=torch.uint8) for _ in range(4)]
        seen: list[int] = []

        def let_go(number: int | None, seen: list[int] = seen) -> None:
            copy.let_go(number)
            seen.append(held(copy))

        transport.fails = end == "fails"
        transfer = Transfer(Ring(transport, buffers=2, buffer_bytes=32), [*copy.blocks], targets, let_go)
        if end != "never begins":
            transfer.start()
            transport.gate.set()
        if end == "fails":
            with pytest.raises(RuntimeError, match="illegal"):
                transfer.wait(3)
        elif end == "arrives":
            transfer.wait(3)
            assert seen == [192, 128, 64, 0]
            assert all(map(torch.equal, targets, [plain(each) for each in live]))
        transfer.join()
        assert held(copy) == 0


def test_a_snapshot_that_is_first_taken_in_inference_mode_is_taken_again_outside_of_it() -> None:
    """What torch makes under inference mode may not be changed outside of it."""
    snapshotter, live = Snapshotter(), [torch.ones(3), torch.zeros(())]
    with torch.inference_mode():
        assert torch.equal(snapshotter.take(live).wait()[0], torch.ones(3))
    live[0].fill_(2.0)
    assert torch.equal(snapshotter.take(live).wait()[0], torch.full((3,), 2.0))
