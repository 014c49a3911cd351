"""Faults to plant in trainhooks, so that the matrix is seen to notice each of them."""
# mypy: disable-error-code="method-assign, assignment, attr-defined"

from collections.abc import Callable
from typing import Any

import torch

FAULTS: dict[str, Callable[[], None]] = {}


def plant(names: list[str]) -> None:
    """Break trainhooks in this process."""
    for name in names:
        FAULTS[name]()


def fault(function: Callable[[], None]) -> Callable[[], None]:
    FAULTS[function.__name__] = function
    return function


@fault
def random_numbers_not_restored() -> None:
    from trainhooks.pytorch import rng

    rng.restore = lambda state: None


@fault
def numpy_not_restored() -> None:
    from trainhooks.pytorch import rng

    restore = rng.restore
    import numpy as np

    def without_numpy(state: dict[str, Any]) -> None:
        restore({**state, "numpy": np.random.get_state(legacy=False)})

    rng.restore = without_numpy


@fault
def position_off_by_one() -> None:
    from trainhooks.pytorch.data.loader import PositionedLoader

    load = PositionedLoader.load_state_dict
    PositionedLoader.load_state_dict = lambda self, state: load(self, {**state, "offset": state["offset"] + 1})


@fault
def round_robin_forgotten() -> None:
    from trainhooks.pytorch.data.iterable import IterableLoader

    load = IterableLoader.load_state_dict
    IterableLoader.load_state_dict = lambda self, state: load(self, {**state, "turn": 0})


@fault
def open_window_dropped() -> None:
    from trainhooks.pytorch.checkpoint.state import TrainingState

    TrainingState.restore_gradients = lambda self, gradients: None


@fault
def samples_not_seeded() -> None:
    from trainhooks.pytorch.data import fetch, stream

    fetch.seed_all = stream.seed_all = lambda seed: None


@fault
def generator_shared() -> None:
    """The loader's iterator draws from the training's generator, after that was restored."""
    from trainhooks.pytorch.data import workers

    make = workers.data_loader

    def sharing(*args: Any, **options: Any) -> Any:
        loader = make(*args, **options)
        loader.generator = None
        return loader

    workers.data_loader = sharing


@fault
def samples_draw_from_the_training() -> None:
    """Seeds are set and the training's generators are not put back."""
    from contextlib import nullcontext

    from trainhooks.pytorch.data import fetch, stream

    fetch.kept_apart = stream.kept_apart = nullcontext


@fault
def learning_rate_changed() -> None:
    load = torch.optim.Optimizer.load_state_dict

    def load_doubled(self: Any, state: dict[str, Any]) -> None:
        load(self, state)
        for group in self.param_groups:
            group["lr"] *= 2

    torch.optim.Optimizer.load_state_dict = load_doubled


@fault
def optimizer_state_dropped() -> None:
    load = torch.optim.Optimizer.load_state_dict
    torch.optim.Optimizer.load_state_dict = lambda self, state: load(self, {**state, "state": {}})


@fault
def other_kernels() -> None:
    function = torch.nn.functional.mse_loss
    torch.nn.functional.mse_loss = lambda *given: function(*given) * (1 + 2**-20)


@fault
def scheduler_forgotten() -> None:
    torch.optim.lr_scheduler.LRScheduler.load_state_dict = lambda self, state: None
