"""What a module counts outside its state_dict: plain attributes and buffers that are not persistent. It is said once.

An average that keeps `self.updates` as a number begins its warm-up again after a resume, and nothing else shows it.
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from torch.nn import Module

log = logging.getLogger("trainhooks")

_LOOKS = 3
"""Checkpoints at which it is looked at; the walk over all modules is not repeated at every one."""
_PLAIN = (bool, int, float)


class UnsavedCounters:
    """Compares one checkpoint with the one before: what changes between them is no setting."""

    def __init__(self, objects: Mapping[str, Any]) -> None:
        self._modules = {name: each for name, each in objects.items() if isinstance(each, Module)}
        self._before: dict[str, Any] | None = None
        self._looks = 0

    def look(self) -> None:
        """Warn of what has changed since the last look."""
        if self._looks >= _LOOKS:
            return
        self._looks += 1
        now = {path: value for name, each in self._modules.items() for path, value in _counted(name, each)}
        before, self._before = self._before, now
        changed = [path for path, value in now.items() if before is not None and before.get(path, value) != value]
        if changed:
            self._looks = _LOOKS
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            log.warning(
                "not resumed: %s%s changes during the training and is in no state_dict(): register_buffer() keeps it,"
                " or an object of its own in state=",
                changed[0],
                more,
            )


def _counted(name: str, module: Module) -> Iterator[tuple[str, Any]]:
    for path, each in module.named_modules():
        prefix = f"{name}.{path}" if path else name
        for attribute, value in vars(each).items():
            if type(value) in _PLAIN and attribute != "training" and not attribute.startswith("_"):
                yield f"{prefix}.{attribute}", value
        for attribute in each._non_persistent_buffers_set:
            buffer = each._buffers.get(attribute)
            if buffer is not None and not buffer.is_inference():
                yield f"{prefix}.{attribute}", (id(buffer), buffer._version)
