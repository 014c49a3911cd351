"""The values of a row as they are recorded: read at once, or held on a CUDA device until a window of them is copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from trainhooks.session import value
from trainhooks.session.row_sink import RowSink

if TYPE_CHECKING:
    from trainhooks.pytorch.window import DeviceWindow


class RowValues:
    """Reads what `update_metrics` gets. On the training's own thread."""

    def __init__(self) -> None:
        self.window: DeviceWindow | None = None
        """Numbers on a CUDA device; made when the first one comes."""

    def read(self, name: str, given: Any, sink: RowSink) -> Any:
        """Return the value as JSON has it, or a place in the window for one on a CUDA device.

        Raises:
            ConfigInvalid: a tensor or array of more than one element.
        """
        if isinstance(given, Mapping):
            return {str(part): self.read(f"{name}.{part}", item, sink) for part, item in given.items()}
        if not value.is_on_cuda(given):
            return value.read(name, given)
        value.require_one(name, given)
        if sink.files is None:
            return None if sink.late is None else value.read(name, given)
        if self.window is None:
            from trainhooks.pytorch.window import DeviceWindow

            self.window = sink.files.recorder.device = DeviceWindow()
        return self.window.hold(name, given)

    def send(self) -> None:
        """Start the copy of what is held on a device. Does not wait."""
        if self.window is not None:
            self.window.move()
