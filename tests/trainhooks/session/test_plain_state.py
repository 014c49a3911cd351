"""Objects in `state=` without a state_dict, early stopping and generators: saved, or refused by name."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import EarlyStoppingCallback

from trainhooks import training_progress_context
from trainhooks.errors import DriftBlocked, StateUnsupported


class EarlyStopping:
    """As many scripts have it."""

    def __init__(self, patience: int = 3, trace: Callable[..., Any] = print) -> None:
        self.patience = patience
        self.counter = 0
        self.best: Any = None
        self.history: list[float] = []
        self.weights: dict[str, torch.Tensor] = {}
        self.trace = trace

    def __call__(self, loss: float, model: nn.Module) -> bool:
        self.history.append(loss)
        if self.best is None or loss < self.best:
            self.best, self.counter = np.float64(loss), 0
            self.weights = {name: each.clone() for name, each in model.state_dict().items()}
        else:
            self.counter += 1
        return self.counter >= self.patience


def train(out: Path, until: int, others: dict[str, Any], step: Callable[[int], Any], **options: Any) -> None:
    model = nn.Linear(2, 1)
    with training_progress_context(
        {}, out, 20, state={"model": model, **others}, database=False, **options
    ) as progress:
        progress.loader([torch.ones(2), torch.zeros(2)])
        for number, _ in progress.steps():
            step(number)
            if number + 1 == until:
                progress.stop()


def test_early_stopping_with_plain_attributes_counts_on(tmp_path: Path) -> None:
    stops = []
    for until in (4, 9):
        stopping = EarlyStopping()
        train(
            tmp_path,
            until,
            {"early_stopping": stopping},
            lambda step, each=stopping: stops.append(each(max(1.0, 3 - step), MODEL)),
        )
        assert stopping.trace is print
        assert stopping.weights["weight"].equal(MODEL.weight)
    assert stopping.history == [3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert stops.index(True) == 5


MODEL = nn.Linear(2, 1)


def test_the_trainers_early_stopping_counts_on(tmp_path: Path) -> None:
    for until in (3, 5):
        callback = EarlyStoppingCallback(early_stopping_patience=7)

        def step(number: int, callback: Any = callback) -> None:
            callback.early_stopping_patience_counter += 1

        train(tmp_path, until, {"early_stopping": callback}, step)
    assert callback.early_stopping_patience_counter == 5


def test_lightnings_early_stopping_counts_on(tmp_path: Path) -> None:
    from pytorch_lightning.callbacks import EarlyStopping as OfLightning

    for until in (3, 5):
        callback = OfLightning("val_loss", patience=9)

        def step(number: int, callback: Any = callback) -> None:
            callback._evaluate_stopping_criteria(torch.tensor(1.0))

        train(tmp_path, until, {"early_stopping": callback}, step)
    assert (callback.wait_count, callback.best_score.item()) == (4, 1.0)


def test_a_changed_patience_is_refused_until_restore_says_whose_holds(tmp_path: Path) -> None:
    def go(until: int, patience: int, **options: Any) -> EarlyStopping:
        stopping = EarlyStopping(patience)
        train(tmp_path, until, {"early_stopping": stopping}, lambda step: stopping(1.0, MODEL), **options)
        return stopping

    go(3, 5)
    with pytest.raises(DriftBlocked, match=r"hyperparameters\.early_stopping.patience was 5 and is 8"):
        go(4, 8)
    kept = go(4, 8, restore={"early_stopping": "checkpoint"})
    assert (kept.patience, kept.counter) == (5, 3)
    changed = go(5, 8, restore="state-only")
    assert (changed.patience, changed.counter) == (8, 4)


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (lambda: torch.Generator().manual_seed(3), lambda each: torch.rand(1, generator=each).item()),
        (lambda: np.random.default_rng(3), lambda each: each.random()),
        (lambda: np.random.Generator(np.random.MT19937(3)), lambda each: each.random()),
        (lambda: np.random.RandomState(3), lambda each: each.normal()),
        (lambda: random.Random(3), lambda each: each.gauss()),
    ],
    ids=["torch", "numpy", "numpy-mt", "legacy", "python"],
)
def test_a_generator_of_the_loop_continues(
    tmp_path: Path, make: Callable[[], Any], draw: Callable[[Any], float]
) -> None:
    alone = make()
    expected = [draw(alone) for _ in range(6)]
    drawn: list[float] = []
    for until in (3, 6):
        generator = make()
        train(tmp_path, until, {"noise": generator}, lambda step, g=generator: drawn.append(draw(g)))  # type: ignore[misc]
    assert drawn == expected


def test_a_parameter_in_plain_attributes_stays_the_one_that_is_trained(tmp_path: Path) -> None:
    class Temperature:
        def __init__(self) -> None:
            self.log_alpha = torch.zeros(1, requires_grad=True)

    values = []
    for until in (2, 4):
        temperature = Temperature()
        optimizer = torch.optim.SGD([temperature.log_alpha], lr=1.0)

        def step(number: int, temperature: Any = temperature, optimizer: Any = optimizer) -> None:
            temperature.log_alpha.grad = torch.ones(1)
            optimizer.step()
            values.append(temperature.log_alpha.item())

        train(tmp_path, until, {"temperature": temperature, "optimizer": optimizer}, step)
    assert values == [-1.0, -2.0, -3.0, -4.0]


class WithModel:
    def __init__(self) -> None:
        self.count = 0
        self.inner = nn.Linear(2, 1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (WithModel(), "its attribute inner is a Linear"),
        (object(), "is a object"),
        (3, "is a int"),
        ("early", "is a str"),
        ([1], "is a list"),
        (MODEL.state_dict(), "is a OrderedDict"),
        (torch.ones(2), "is a Tensor"),
        (EarlyStopping, "is a type"),
        (len, "is a builtin_function_or_method"),
        (random.SystemRandom(), "is a SystemRandom"),
    ],
    ids=str,
)
def test_what_cannot_be_saved_is_refused_by_name(tmp_path: Path, given: Any, said: str) -> None:
    with pytest.raises(StateUnsupported, match=f"early in state= {said}|early in state= .*{said}"):
        train(tmp_path, 1, {"early": given}, lambda step: None)
