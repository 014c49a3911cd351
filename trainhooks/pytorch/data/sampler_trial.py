"""What a sampler was before something was tried with it: a replay that does not fit leaves no trace."""

import copy
from collections import deque
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from trainhooks.pytorch.data.drawing import has_memory, parts_of

_first_seen: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()
"""Of samplers that change from epoch to epoch: what they were when a loader was first made of them."""


class SamplerTrial:
    """What a sampler and its parts are before something is tried with them: values, and members of containers."""

    def __init__(self, sampler: Any) -> None:
        self._parts = [(part, _copied(vars(part))) for part in parts_of(sampler) if hasattr(part, "__dict__")]

    def undo(self) -> None:
        """Make them again what they were."""
        for part, attributes in self._parts:
            part.__dict__.update(_copied(attributes))


def remember(sampler: Any) -> None:
    """Keep what a sampler is, before a first loader draws from it."""
    if not has_memory(sampler):
        return
    for part in parts_of(sampler):
        if hasattr(part, "__dict__") and part not in _first_seen:
            _first_seen[part] = _copied(vars(part))


def begin_anew(sampler: Any) -> None:
    """Make a sampler what it was when a loader was first made of it: a notebook opens one object again and again."""
    for part in parts_of(sampler):
        if hasattr(part, "__dict__") and part in _first_seen:
            part.__dict__.update(_copied(_first_seen[part]))


def _copied(attributes: dict[str, Any]) -> dict[str, Any]:
    return {
        name: copy.deepcopy(value)
        if type(value) in (np.ndarray, torch.Tensor)
        else copy.copy(value)
        if type(value) in (list, dict, set, deque)
        else value
        for name, value in attributes.items()
    }
