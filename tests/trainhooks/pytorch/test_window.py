"""Which tensors may be kept by reference, decided on CPU tensors; only the copy to the host is a stand-in here.

tests/gpu/test_metrics.py has the same on a GPU.
"""

import logging
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from trainhooks.pytorch.window import DeviceWindow, Held


class Late:
    """A copy that is there when it is told to be; takes the values at once, as a stream keeps its order."""

    sent: list["Late"] = []

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.numbers = [tensor.item() for tensor in tensors]
        self.has_come = False
        Late.sent.append(self)

    def is_there(self) -> bool:
        return self.has_come

    def read(self) -> list[Any]:
        return self.numbers


@pytest.fixture
def window() -> DeviceWindow:
    Late.sent = []
    return DeviceWindow(Late)


def values(window: DeviceWindow, held: list[Held]) -> list[Any]:
    window.move()
    members = {str(at): each for at, each in enumerate(held)}
    assert window.settle(members, wait=True)
    return list(members.values())


def test_new_tensors_are_kept_by_reference_once_that_is_proven(window: DeviceWindow) -> None:
    held = [window.hold("loss", torch.tensor(float(at))) for at in range(10)]
    assert [each.is_reference for each in held] == [False] * 2 + [True] * 8
    assert values(window, held) == [float(at) for at in range(10)]


def test_one_tensor_written_again_and_again_is_copied(window: DeviceWindow) -> None:
    loss, held = torch.tensor(0.0), []
    for at in range(20):
        loss.fill_(at)
        held.append(window.hold("loss", loss))
    assert not any(each.is_reference for each in held)
    assert values(window, held) == [float(at) for at in range(20)]


def test_one_memory_written_behind_autograds_back_is_copied(window: DeviceWindow) -> None:
    """A captured CUDA graph writes its outputs without any version that changes; only the address tells."""
    memory, held = torch.zeros(1), []
    for at in range(20):
        memory.numpy()[0] = at
        held.append(window.hold("loss", memory[0]))
    assert values(window, held) == [float(at) for at in range(20)]


def test_memories_that_take_turns_are_copied(window: DeviceWindow) -> None:
    """Two captured graphs, one after the other: no address is that of the step before."""
    memory, held = torch.zeros(2), []
    for at in range(20):
        memory.numpy()[at % 2] = at
        held.append(window.hold("loss", memory[at % 2]))
        if at == 9:
            window.move()
    assert values(window, held) == [float(at) for at in range(20)]


def test_a_tensor_changed_after_its_row_is_never_recorded_with_a_later_value(
    window: DeviceWindow, caplog: pytest.LogCaptureFixture
) -> None:
    held = []
    with caplog.at_level(logging.WARNING):
        for at in range(20):
            loss = torch.tensor(float(at))
            held.append(window.hold("loss", loss))
            if at >= 10:
                loss.add_(1_000)  # the loop's habit changes in the middle
    found = values(window, held)
    assert all(value in (float(at), None) for at, value in enumerate(found))
    assert found.count(None) == 1, "from then on it is copied"
    assert "changed in place" in caplog.text


def test_the_last_row_of_a_window_is_checked_too(window: DeviceWindow) -> None:
    tensors = [torch.tensor(float(at)) for at in range(10)]
    held = [window.hold("loss", each) for each in tensors]
    tensors[-1].mul_(5)
    assert values(window, held) == [*(float(at) for at in range(9)), None]


def test_a_static_output_after_new_tensors_leaves_no_wrong_number(window: DeviceWindow) -> None:
    """Eager steps, then a captured graph that writes one memory."""
    held = [window.hold("loss", torch.tensor(float(at))) for at in range(6)]
    memory = torch.zeros(1)
    for at in range(6, 12):
        memory.numpy()[0] = at
        held.append(window.hold("loss", memory[0]))
    found = values(window, held)
    assert all(value in (float(at), None) for at, value in enumerate(found))
    assert found.count(None) == 1


def test_inference_tensors_have_no_version_and_are_copied(window: DeviceWindow) -> None:
    with torch.inference_mode():
        loss, held = torch.tensor(0.0), []
        for at in range(10):
            loss.fill_(at)
            held.append(window.hold("loss", loss))
    assert values(window, held) == [float(at) for at in range(10)]


def test_names_are_distinguished(window: DeviceWindow) -> None:
    shared, held = torch.tensor(0.0), []
    for at in range(8):
        shared.fill_(at)
        held += [window.hold("shared", shared), window.hold("new", torch.tensor(float(-at)))]
    assert values(window, held) == [number for at in range(8) for number in (float(at), float(-at))]
    assert held[-1].is_reference
    assert not held[-2].is_reference


def test_the_graph_of_a_loss_is_not_kept_alive(window: DeviceWindow) -> None:
    held = [window.hold("loss", torch.ones((), requires_grad=True) * 2) for _ in range(5)]
    assert all(each.tensor is not None and each.tensor.grad_fn is None for each in held)


def test_one_parcel_for_each_dtype(window: DeviceWindow) -> None:
    held = [
        window.hold(name, torch.tensor(1, dtype=dtype))
        for name, dtype in (("a", torch.float32), ("b", torch.bfloat16), ("c", torch.float32), ("d", torch.int64))
    ]
    assert values(window, held) == [1.0, 1.0, 1.0, 1]
    assert [len(parcel.numbers) for parcel in Late.sent] == [2, 1, 1]


def test_rows_wait_for_their_numbers(window: DeviceWindow) -> None:
    members: dict[str, Any] = {
        "loss": window.hold("loss", torch.tensor(1.0)),
        "parts": {"ce": window.hold("ce", torch.tensor(2.0))},
    }
    assert not window.settle(members, wait=False), "not sent yet"
    assert not window.settle(members, wait=True), "waiting from another thread gives no empty number"
    window.move()
    assert not window.settle(members, wait=False), "on its way"
    Late.sent[0].has_come = True
    assert window.settle(members, wait=False)
    assert members == {"loss": 1.0, "parts": {"ce": 2.0}}


def test_a_window_is_sent_when_it_is_old_or_full(window: DeviceWindow) -> None:
    window.hold("loss", torch.tensor(1.0))
    window.move_if_due(window._moved_at + 0.1)
    assert Late.sent == []
    window.move_if_due(window._moved_at + 0.3)
    assert len(Late.sent) == 1
    for at in range(1024):
        window.hold("loss", torch.tensor(float(at)))
        window.move_if_due(window._moved_at)
    assert len(Late.sent) == 2
