"""Numbers that stay on the GPU until a whole window of them comes to the host: one stack and one copy, nothing waits.

A tensor is kept by reference only once its name is proven to bring a new one each time: the last one is still held, so
equal addresses or a changed version mean that the loop writes into one tensor again and again. Until then, and for
such names for good, the value is copied on the device (an asynchronous 5 us).
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

log = logging.getLogger("trainhooks")

_PROOF = 3
"""New tensors in a row that a name must bring before they are kept by reference."""
_WINDOW_SECONDS = 0.25
_WINDOW_NUMBERS = 1024


class Parcel(Protocol):
    """Numbers on their way to the host."""

    def is_there(self) -> bool:
        """Whether reading would not wait."""

    def read(self) -> list[Any]:
        """Return the numbers, in order; waits for them."""


class Held:
    """One number of one row."""

    __slots__ = ("index", "is_reference", "is_spoiled", "name", "parcel", "tensor", "version")

    def __init__(self, name: str, tensor: Tensor, *, is_reference: bool) -> None:
        self.name = name
        self.tensor: Tensor | None = tensor
        self.version = tensor._version if is_reference else 0
        self.is_reference = is_reference
        self.is_spoiled = False
        """Whether the loop changed it before it was sent: its value is not known."""
        self.parcel: Parcel | None = None
        self.index = 0


class _Habit:
    """What the tensors of one name are like."""

    def __init__(self) -> None:
        self.kept: dict[int, tuple[Tensor, int, Held]] = {}
        """Tensors of this window by address, with their version: while they are kept, no new one can be there."""
        self.news = 0
        self.is_reused = False


class DeviceWindow:
    """Tensors between two moves. Held and moved on the training's thread, settled on the recorder's.

    Args:
        send: begins to bring tensors of one device and dtype to the host.
    """

    def __init__(self, send: "Callable[[Sequence[Tensor]], Parcel] | None" = None) -> None:
        self._send = send or CudaParcel
        self._lock = threading.Lock()
        self._habits: dict[str, _Habit] = {}
        self._held: list[Held] = []
        self._moved_at = time.monotonic()

    def hold(self, name: str, tensor: Tensor) -> Held:
        """Take a number as it is now. Does not wait for the device."""
        tensor = tensor.detach()
        with self._lock:
            habit = self._habits.get(name)
            if habit is None:
                habit = self._habits[name] = _Habit()
            version = self._check(habit, tensor)
            by_reference = version is not None and habit.news >= _PROOF
            held = Held(name, tensor if by_reference else tensor.clone(), is_reference=by_reference)
            if version is not None:
                habit.kept[tensor.data_ptr()] = (tensor, version, held)
            self._held.append(held)
            return held

    def move_if_due(self, now: float) -> None:
        """Send what is held once there is enough of it or it has waited long enough."""
        if self._held and (now - self._moved_at >= _WINDOW_SECONDS or len(self._held) >= _WINDOW_NUMBERS):
            self.move()

    def move(self) -> None:
        """Send everything that is held on its way, in one copy for each device and dtype."""
        if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
            return  # a graph is being recorded: it must not hold our copies
        with self._lock:
            held, self._held = self._held, []
            self._moved_at = time.monotonic()
            for habit in self._habits.values():
                while len(habit.kept) > 1:  # the last one is compared with the next
                    del habit.kept[next(iter(habit.kept))]
            groups: dict[tuple[torch.device, torch.dtype], list[Held]] = {}
            for each in held:
                tensor = each.tensor
                assert tensor is not None
                if each.is_reference and tensor._version != each.version:
                    self._spoil(each)
                if not each.is_spoiled:
                    groups.setdefault((tensor.device, tensor.dtype), []).append(each)
            for members in groups.values():
                parcel = self._send([each.tensor for each in members if each.tensor is not None])
                for index, each in enumerate(members):
                    each.index, each.parcel, each.tensor = index, parcel, None

    def settle(self, members: dict[str, Any], *, wait: bool) -> bool:
        """Put numbers in place of what was held, None for spoiled ones; False where they are not there yet.

        `wait` waits for those that are on their way, not for those that were not sent.
        """
        for name, value in members.items():
            if type(value) is Held:
                if not self._is_ready(value, wait=wait):
                    return False
                members[name] = self._value(value)
            elif type(value) is dict and not self.settle(value, wait=wait):
                return False
        return True

    def _check(self, habit: _Habit, tensor: Tensor) -> int | None:
        """Return a new tensor's version, or None for one of a name that is written in place."""
        if habit.is_reused:
            return None
        if tensor.is_inference():  # it has no version to compare
            self._give_up(habit)
            return None
        same = habit.kept.get(tensor.data_ptr())
        last = next(reversed(habit.kept.values()), None)
        for each in (same, last):
            if each is not None and (each is same or each[0]._version != each[1]):
                if each[2].is_reference and each[2].parcel is None:
                    self._spoil(each[2])
                self._give_up(habit)
                return None
        habit.news += 1
        return tensor._version

    @staticmethod
    def _give_up(habit: _Habit) -> None:
        habit.is_reused = True
        habit.kept.clear()

    def _spoil(self, held: Held) -> None:
        held.is_spoiled = True
        self._give_up(self._habits[held.name])
        log.warning(
            "the metric %s was changed in place after it was recorded: its row has null; from now on it is copied",
            held.name,
        )

    @staticmethod
    def _is_ready(held: Held, *, wait: bool) -> bool:
        return held.is_spoiled or (held.parcel is not None and (wait or held.parcel.is_there()))

    @staticmethod
    def _value(held: Held) -> Any:
        return None if held.parcel is None else held.parcel.read()[held.index]


class CudaParcel:
    """One stack and one copy to pinned memory on the current stream, and an event behind them."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        stacked = torch.stack([tensor.reshape(()) for tensor in tensors])
        self._host = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True)
        self._host.copy_(stacked, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record(torch.cuda.current_stream(stacked.device))
        self._numbers: list[Any] | None = None

    def is_there(self) -> bool:
        """Whether the copy is done."""
        return bool(self._event.query())  # type: ignore[no-untyped-call]

    def read(self) -> list[Any]:
        """Return the numbers, in order; waits for the copy."""
        if self._numbers is None:
            self._event.synchronize()
            host = self._host.double() if self._host.is_floating_point() else self._host
            self._numbers = host.tolist()
        return self._numbers
