"""Blocks come to the host through a few buffers, each let go of once it is there. A made-up device stands in."""

import gc
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from trainhooks.pytorch.checkpoint.cuda import DeviceMemory
from trainhooks.pytorch.checkpoint.packing import Packing, flat, pack
from trainhooks.pytorch.checkpoint.snapshot import Arena, bring
from trainhooks.pytorch.checkpoint.staging import Block, Ring, Transfer


class Lazy:
    """Copies at the last moment: when it is waited for. What is read before that, or is overwritten, is noticed."""

    def __init__(self) -> None:
        self.pinned: list[Tensor] = []
        self.sent = 0
        self.fails_at: int | None = None
        self.gate = threading.Event()
        self.gate.set()

    def buffer(self, size_bytes: int) -> Tensor:
        self.pinned.append(torch.full((size_bytes,), 0xEE, dtype=torch.uint8))
        return self.pinned[-1]

    def send(self, source: Tensor, target: Tensor) -> Callable[[], None]:
        self.sent += 1
        number = self.sent
        target.fill_(0xDD)

        def wait() -> None:
            assert self.gate.wait(60)
            if number == self.fails_at:
                raise RuntimeError("an illegal memory access was encountered")
            target.copy_(source)

        return wait


def some(sizes: list[int]) -> tuple[list[Block], list[Tensor], list[Tensor]]:
    blocks = [torch.randint(256, (size,), dtype=torch.uint8) for size in sizes]
    return list(blocks), [block.clone() for block in blocks], [torch.zeros(size, dtype=torch.uint8) for size in sizes]


@pytest.mark.parametrize("sizes", [[0], [1], [64], [65, 0, 1000, 64, 7], [128] * 20, []])
@pytest.mark.parametrize("buffers", [1, 2, 4])
@pytest.mark.parametrize("hands", [1, 3])
def test_every_byte_arrives_through_the_ring(sizes: list[int], buffers: int, hands: int) -> None:
    transport = Lazy()
    ring = Ring(transport, buffers=buffers, buffer_bytes=64)
    for _ in range(2):  # the buffers are used again
        blocks, wanted, targets = some(sizes)
        arrived: list[int] = []

        def check(number: int, *, arrived: list[int] = arrived, of: Any = (wanted, targets)) -> None:
            arrived.append(number)
            assert torch.equal(of[0][number], of[1][number])

        ring.fetch(blocks, targets, check, hands=hands)
        assert arrived == list(range(len(sizes)))
        assert all(block is None for block in blocks)
    assert len(transport.pinned) == buffers


def test_a_block_is_let_go_of_before_the_next_ones_are_there() -> None:
    blocks, _, targets = some([100, 100, 100])
    watched = [weakref.ref(block) for block in blocks if isinstance(block, Tensor)]
    seen = []

    def look(number: int) -> None:
        gc.collect()
        seen.append([each() is None for each in watched])

    Ring(Lazy(), buffers=2, buffer_bytes=64).fetch(blocks, targets, look)
    assert seen == [[True, False, False], [True, True, False], [True, True, True]]


def test_a_transfer_reports_each_block_and_holds_nothing_afterwards() -> None:
    transport = Lazy()
    blocks, wanted, targets = some([200, 0, 70])
    transfer = Transfer(Ring(transport, buffers=2, buffer_bytes=64), blocks, targets)
    for number in (2, 0, 1):
        transfer.wait(number)
        assert torch.equal(targets[number], wanted[number])
    transfer.join()
    assert blocks == []


def test_what_goes_wrong_on_the_way_is_raised_where_it_is_waited_for() -> None:
    transport = Lazy()
    transport.fails_at = 2
    blocks, _, targets = some([200, 70])
    transfer = Transfer(Ring(transport, buffers=2, buffer_bytes=64), blocks, targets)
    for number in (1, 0):
        with pytest.raises(RuntimeError, match="illegal memory"):
            transfer.wait(number)
    transfer.join()
    assert blocks == [], "a failed transfer gives its memory back as well"


def test_one_that_never_began_gives_its_memory_back() -> None:
    blocks, _, targets = some([200])
    Transfer(Ring(Lazy(), buffers=2, buffer_bytes=64), blocks, targets).join()
    assert blocks == []


def odd_tensors() -> list[Tensor]:
    return [
        torch.randn(7, 5),
        torch.randn(7, 5).t(),
        torch.zeros(0, 3),
        torch.tensor(3),
        torch.randn(5)[::5],
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.randn(3, dtype=torch.complex128),
        torch.randn(9).to(torch.float8_e5m2),
        torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        torch.randn(5, 5).bfloat16(),
        torch.tensor([True, False, True]),
        torch.tensor([1, 65535], dtype=torch.uint16),
        torch.randn(4).expand(3, 4),
        torch.randn(11),
        torch.tensor(2.5),
    ]


@pytest.mark.parametrize("most_bytes", [1, 64, 1 << 20])
def test_blocks_and_views_hold_every_tensor(monkeypatch: pytest.MonkeyPatch, most_bytes: int) -> None:
    for name in ("_LEAST_BLOCK_BYTES", "_MOST_BLOCK_BYTES"):
        monkeypatch.setattr(f"trainhooks.pytorch.checkpoint.packing.{name}", most_bytes)
    tensors = odd_tensors()
    packing = Packing(tensors)
    assert packing.fits(tensors)
    assert not packing.fits(tensors[:-1])
    assert not packing.fits([*tensors[:-1], torch.tensor(2)])
    blocks = [flat([tensors[place] for place in block.places]) for block in packing.blocks]
    assert [block.numel() for block in blocks] == [block.size_bytes for block in packing.blocks]
    for view, tensor in zip(packing.views(blocks), tensors, strict=True):
        assert view.is_contiguous()
        assert (view.dtype, view.shape) == (tensor.dtype, tensor.shape)
        assert bits(view, tensor.resolve_conj().clone(memory_format=torch.contiguous_format))


@pytest.mark.parametrize("large_bytes", [0, 40, 1 << 20])
@pytest.mark.parametrize("buffer_bytes", [7, 64, 4096])
def test_without_room_every_tensor_comes_through_few_buffers(
    monkeypatch: pytest.MonkeyPatch, large_bytes: int, buffer_bytes: int
) -> None:
    """What is pinned is the ring, whatever the size of the state. Copies on the device are made one at a time."""
    monkeypatch.setattr("trainhooks.pytorch.checkpoint.packing._LARGE_BYTES", large_bytes)
    transport, arena = Lazy(), Arena()
    ring = Ring(transport, buffers=3, buffer_bytes=buffer_bytes)
    for _ in range(2):
        tensors = odd_tensors()
        made: list[weakref.ref[Tensor]] = []
        alive: list[int] = []

        def make(part: Sequence[Tensor], *, made: list[weakref.ref[Tensor]] = made, alive: list[int] = alive) -> Tensor:
            found = flat(part)
            made.append(weakref.ref(found))
            alive.append(sum(each() is not None for each in made))
            return found

        views = bring(tensors, arena, ring, make)
        assert max(alive) <= 4, "three on their way and the one just made"
        packing = arena.packing(tensors)
        assert len(made) == sum(1 for block in packing.blocks for _ in packing.parts(block, tensors))
        for view, tensor in zip(views, tensors, strict=True):
            assert (view.dtype, view.shape) == (tensor.dtype, tensor.shape)
            assert bits(view, tensor.resolve_conj().clone(memory_format=torch.contiguous_format))
    assert [each.numel() for each in transport.pinned] == [buffer_bytes] * 3


def test_what_goes_wrong_in_one_of_many_hands_is_raised() -> None:
    transport = Lazy()
    transport.fails_at = 2
    blocks, _, targets = some([200, 70])
    with pytest.raises(RuntimeError, match="illegal memory"):
        Ring(transport, buffers=2, buffer_bytes=64).fetch(blocks, targets, lambda number: None, hands=3)


class Driver:
    """torch's allocator and the driver, as far as `DeviceMemory` asks them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.stats = {"num_alloc_retries": 0, "num_device_alloc": 1, "num_device_free": 0}
        self.free = 10 << 30
        self.asked = 0
        monkeypatch.setattr(torch.cuda, "memory_stats_as_nested_dict", lambda device: dict(self.stats))
        monkeypatch.setattr(torch.cuda, "mem_get_info", self._info)

    def _info(self, device: torch.device) -> tuple[int, int]:
        self.asked += 1
        return self.free, 80 << 30


def test_the_driver_is_asked_for_room_once_unless_memory_was_returned_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    driver, memory = Driver(monkeypatch), DeviceMemory(torch.device("cuda", 0))
    for _ in range(3):
        assert memory.has_room(5 << 30)
        memory.keep(5 << 30)
        driver.free = 0
    assert driver.asked == 1
    assert not memory.has_room(6 << 30)
    driver.stats["num_device_free"] += 1  # torch.cuda.empty_cache()
    assert not memory.has_room(5 << 30)
    driver.free = 10 << 30
    assert memory.has_room(5 << 30)
    memory.keep(5 << 30)
    memory.forget()
    driver.free = 0
    assert not memory.has_room(1)


def test_an_allocator_that_counts_less_is_believed_where_the_driver_has_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver, memory = Driver(monkeypatch), DeviceMemory(torch.device("cuda", 0))
    driver.stats = {"num_alloc_retries": 0}
    assert memory.has_room(5 << 30)
    memory.keep(5 << 30)
    driver.free = 0
    assert memory.has_room(5 << 30)
    assert driver.asked == 2
    driver.stats["num_alloc_retries"] = 1
    assert not memory.has_room(5 << 30)


def bits(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


def test_a_packed_copy_is_never_the_tensor_itself() -> None:
    tensor = torch.ones(5)
    packed = pack([tensor])
    tensor.zero_()
    assert bool((packed.view(torch.float32) == 1).all())
