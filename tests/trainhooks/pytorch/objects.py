"""What trainings are made of, saved and compared."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler

from trainhooks.core.policy import CheckpointPolicy
from trainhooks.pytorch.checkpoint.saver import Saver
from trainhooks.pytorch.checkpoint.state import TrainingState
from trainhooks.storage.checkpoints import Checkpoint, CheckpointStore

SYNCHRONOUS = CheckpointPolicy(asynchronous=False)


def save(root: Path, objects: dict[str, Any], progress: Any = None) -> Checkpoint:
    saver = Saver(CheckpointStore(root, "feed"), TrainingState(objects), SYNCHRONOUS, attempt=1)
    checkpoint = saver.save(1, progress, {})
    assert checkpoint is not None
    return checkpoint


def equal(left: Any, right: Any) -> bool:
    """Equal to the bit, types and devices included."""
    if isinstance(left, torch.Tensor):
        same = left.dtype == right.dtype and left.shape == right.shape and left.device == right.device
        return same and left.detach().numpy(force=True).tobytes() == right.detach().numpy(force=True).tobytes()
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(equal, left, right))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return bool(np.array_equal(left, right)) if isinstance(left, np.ndarray) else left == right


def model() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))


def train(net: nn.Module, optimizer: Any, scheduler: Any, steps: int, *, start: int = 0) -> None:
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(5, 6, generator=generator)

        def closure(x: torch.Tensor = x) -> torch.Tensor:
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            return loss

        loss = optimizer.step(closure)
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            scheduler.step(loss.item())
        elif scheduler is not None:
            scheduler.step()


class Holder:
    """An object whose state is what a test gives it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> Any:
        return self.value

    def load_state_dict(self, state: Any) -> None:
        self.value = state
