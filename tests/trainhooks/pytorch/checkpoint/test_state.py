"""Whatever a training is made of comes back as it was, or is refused by name."""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, load_model
from torch import nn
from torch.optim import lr_scheduler
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn

from tests.trainhooks.pytorch.objects import SYNCHRONOUS, equal, model, save, train
from trainhooks.pytorch.checkpoint import saver as savers
from trainhooks.pytorch.checkpoint.saver import Saver
from trainhooks.pytorch.checkpoint.state import TrainingState
from trainhooks.storage.checkpoints import CheckpointStore


class Warmup:
    """A callable object, as LambdaLR takes."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, step: int) -> float:
        return min(1.0, (step + 1) / self.steps)


OPTIMIZERS: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
    "adamw_foreach": lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
    "adamw_fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "adamw_tensor_lr": lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01)),
    "adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    "radam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "adadelta": lambda p: torch.optim.Adadelta(p),
    "rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "asgd": lambda p: torch.optim.ASGD(p, lr=0.01),
    "lbfgs": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
}
SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: lr_scheduler.StepLR(o, 3),
    "multistep": lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
    "constant": lambda o: lr_scheduler.ConstantLR(o),
    "linear": lambda o: lr_scheduler.LinearLR(o),
    "exponential": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "polynomial": lambda o: lr_scheduler.PolynomialLR(o, 20),
    "cosine": lambda o: lr_scheduler.CosineAnnealingLR(o, 20),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 4),
    "cyclic": lambda o: lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=3, cycle_momentum=False),
    "onecycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=30),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda step: 0.9**step),
    "lambda_object": lambda o: lr_scheduler.LambdaLR(o, Warmup(7)),
    "multiplicative": lambda o: lr_scheduler.MultiplicativeLR(o, lambda step: 0.95),
    "sequential": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, total_iters=4), lr_scheduler.CosineAnnealingLR(o, 20)], milestones=[4]
    ),
    "chained": lambda o: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, total_iters=4), lr_scheduler.MultiStepLR(o, [3])]
    ),
    "swa": lambda o: SWALR(o, swa_lr=0.05, anneal_epochs=4),
}


def test_every_scheduler_of_torch_is_in_the_table() -> None:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    covered = {type(make(optimizer)).__name__ for make in SCHEDULERS.values()}
    known = {
        name
        for name, each in vars(lr_scheduler).items()
        if isinstance(each, type) and issubclass(each, lr_scheduler.LRScheduler) and not name.startswith("_")
    }
    assert known - covered == {"LRScheduler"}


@pytest.mark.parametrize(
    ("optimizer", "scheduler"),
    [(name, "cosine") for name in OPTIMIZERS] + [("momentum", name) for name in SCHEDULERS],
)
def test_a_training_continues_as_if_nothing_had_been(tmp_path: Path, optimizer: str, scheduler: str) -> None:
    def make() -> dict[str, Any]:
        net = model()
        optim = OPTIMIZERS[optimizer](net.parameters())
        return {"model": net, "optimizer": optim, "scheduler": SCHEDULERS[scheduler](optim)}

    live = make()
    train(live["model"], live["optimizer"], live["scheduler"], 6)
    checkpoint = save(tmp_path, live)
    train(live["model"], live["optimizer"], live["scheduler"], 6, start=6)

    other = make()
    savers.load(checkpoint, TrainingState(other))
    train(other["model"], other["optimizer"], other["scheduler"], 6, start=6)
    for name in ("model", "optimizer"):
        assert equal(live[name].state_dict(), other[name].state_dict())
    assert live["scheduler"].get_last_lr() == other["scheduler"].get_last_lr()


def test_averages_scaler_and_own_objects(tmp_path: Path) -> None:
    class Tally:
        def __init__(self) -> None:
            self.seen: dict[str, Any] = {}

        def state_dict(self) -> dict[str, Any]:
            return {"seen": self.seen}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.seen = state["seen"]

    def make() -> dict[str, Any]:
        net = model()
        ema = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
        return {"model": net, "ema": ema, "scaler": torch.amp.GradScaler("cpu", init_scale=512.0), "own": Tally()}

    live = make()
    with torch.no_grad():
        for parameter in live["model"].parameters():
            parameter.add_(1.0)
    live["ema"].update_parameters(live["model"])
    live["own"].seen = {"rows": Counter("abca"), "keys": {1: (2.5, None)}, "best": torch.tensor(0.25)}
    live["scaler"].scale(torch.ones(1))
    live["scaler"].update(64.0)
    other = make()
    savers.load(save(tmp_path, live), TrainingState(other))
    for name in live:
        assert equal(live[name].state_dict(), other[name].state_dict()), name


def test_anybody_can_load_the_model(tmp_path: Path) -> None:
    net = model()
    checkpoint = save(tmp_path, {"model": net})
    other = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))
    other.load_state_dict(load_file(checkpoint.path / "model.safetensors"))
    assert equal(net.state_dict(), other.state_dict())


class Tied(nn.Module):
    """Embedding and head share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_tied_weights_are_written_once_and_stay_tied(tmp_path: Path) -> None:
    net = Tied()
    checkpoint = save(tmp_path, {"model": net})
    assert list(load_file(checkpoint.path / "model.safetensors")) == ["embedding.weight"]
    other, third = Tied(), Tied()
    savers.load(checkpoint, TrainingState({"model": other}))
    load_model(third, checkpoint.path / "model.safetensors")
    for loaded in (other, third):
        assert loaded.head.weight is loaded.embedding.weight
        assert equal(loaded.state_dict(), net.state_dict())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wrapped_models_are_saved_bare(tmp_path: Path) -> None:
    net = model()
    checkpoint = save(tmp_path, {"model": torch.compile(net)})
    assert load_file(checkpoint.path / "model.safetensors").keys() == net.state_dict().keys()


def step(net: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    net(torch.randn(4, 6)).sum().backward()
    optimizer.step()


def test_gradients_come_back_and_those_that_a_loop_drops_only_as_zeros(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    state = TrainingState({"model": net, "optimizer": optimizer})
    saver = Saver(CheckpointStore(tmp_path, "feed"), state, SYNCHRONOUS, attempt=1)
    net(torch.randn(4, 6)).sum().backward()
    other = model()
    fresh = TrainingState({"model": other, "optimizer": torch.optim.SGD(other.parameters(), lr=0.1)})
    for count in range(4):  # after one step, nothing is known of the next one
        wanted = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
        checkpoint = saver.save(count + 1, None, {})
        assert checkpoint is not None
        savers.load(checkpoint, fresh)
        found = [parameter.grad for parameter in other.parameters()]
        size = checkpoint.manifest.files["rank-00000.safetensors"].size_bytes
        if count < 3:
            assert equal(found, wanted)
        else:
            assert size < 12_000  # random numbers alone
            assert all(gradient is not None and not gradient.any() for gradient in found)
        step(net, optimizer)


def test_random_numbers_come_back(tmp_path: Path) -> None:
    random.seed(3)
    np.random.seed(4)
    torch.manual_seed(5)
    random.gauss()
    np.random.randn(1)
    checkpoint = save(tmp_path, {})
    wanted = [random.random(), random.gauss(), np.random.randn(3).tolist(), torch.randn(3).tolist()]
    savers.load(checkpoint, TrainingState({}))
    assert [random.random(), random.gauss(), np.random.randn(3).tolist(), torch.randn(3).tolist()] == wanted


def test_what_was_loaded_does_not_hold_the_file(tmp_path: Path) -> None:
    """A mapped tensor would keep the disk space of a deleted checkpoint, and die with a truncated one."""
    net = model()
    optimizer = torch.optim.AdamW(net.parameters())
    train(net, optimizer, None, 1)
    checkpoint = save(tmp_path, {"model": net, "optimizer": optimizer})
    other = model()
    objects = {"model": other, "optimizer": torch.optim.AdamW(other.parameters())}
    savers.load(checkpoint, TrainingState(objects))
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()
