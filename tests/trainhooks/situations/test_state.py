"""What public reports found missing after a resume: gradients of a window, counters, averages, scalers."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.optim import lr_scheduler, swa_utils

from tests.trainhooks.situations.runs import Made, run, whole_and_cut
from trainhooks import CheckpointPolicy

ROWS = [torch.linspace(-1, 1, 4) * row / 20 for row in range(1, 14)]


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.3), nn.Linear(6, 1))


def learn(model: nn.Module, batch: torch.Tensor) -> torch.Tensor:
    loss = model(batch).square().mean()
    loss.backward()
    return loss


def made(model: nn.Module, body: Callable[..., Any], **state: Any) -> Made:
    return Made(ROWS, {"batch_size": 2}, model, state, body)


class Running:
    """What a trainer keeps in local variables: the loss of the open window."""

    def __init__(self) -> None:
        self.loss = 0.0
        self.norms: list[float] = []


def loss_of_an_open_window() -> Made:
    """Stopped inside a window, trainers lost its gradients and logged the rest of it as a whole."""
    model, running = net(), Running()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def body(progress: Any, step: int, batch: Any) -> Any:
        running.loss += float(learn(model, batch).detach())
        if step % 4 < 3:
            return None
        optimizer.step()
        optimizer.zero_grad()
        said, running.loss = running.loss, 0.0
        return said

    return made(model, body, optimizer=optimizer, running=running)


def clipping_by_earlier_norms() -> Made:
    model, running = net(), Running()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body(progress: Any, step: int, batch: Any) -> None:
        learn(model, batch)
        running.norms.append(float(nn.utils.get_total_norm([each.grad for each in model.parameters()])))
        del running.norms[:-5]
        nn.utils.clip_grad_norm_(model.parameters(), sorted(running.norms)[len(running.norms) // 2])
        optimizer.step()
        optimizer.zero_grad()

    return made(model, body, optimizer=optimizer, running=running)


class Ema:
    """An average that refers to its model."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.shadow = {name: each.detach().clone() for name, each in model.named_parameters()}
        self.updates = 0

    def update(self) -> None:
        self.updates += 1
        decay = min(0.9, self.updates / (self.updates + 10))
        for name, each in self.model.named_parameters():
            self.shadow[name].lerp_(each.detach(), 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        return {"shadow": self.shadow, "updates": self.updates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shadow, self.updates = state["shadow"], state["updates"]


def average_with_a_warmup() -> Made:
    """The average came back, the count that its decay follows from did not."""
    model = net()
    ema, optimizer = Ema(model), torch.optim.SGD(model.parameters(), lr=0.1)

    def body(progress: Any, step: int, batch: Any) -> Any:
        learn(model, batch)
        optimizer.step()
        optimizer.zero_grad()
        ema.update()
        return copy.deepcopy(ema.shadow)

    return made(model, body, optimizer=optimizer, ema=ema)


def swa() -> Made:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    average, schedule = swa_utils.AveragedModel(model), swa_utils.SWALR(optimizer, swa_lr=0.05, anneal_epochs=3)

    def body(progress: Any, step: int, batch: Any) -> Any:
        learn(model, batch)
        optimizer.step()
        optimizer.zero_grad()
        average.update_parameters(model)
        schedule.step()
        return [each.clone() for each in average.parameters()], schedule.get_last_lr()

    return made(model, body, optimizer=optimizer, average=average, schedule=schedule)


def scaler_before_its_first_use() -> Made:
    """Resumed before it had scaled anything, unscale_ failed."""
    model, scaler = net(), torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body(progress: Any, step: int, batch: Any) -> Any:
        loss = model(batch).square().mean()
        if step < 4:
            return None
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        return scaler.get_scale()

    return made(model, body, optimizer=optimizer, scaler=scaler)


def rate_in_a_tensor() -> Made:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.1), capturable=False, foreach=False)
    schedule = lr_scheduler.CosineAnnealingLR(optimizer, 11)

    def body(progress: Any, step: int, batch: Any) -> Any:
        learn(model, batch)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        return [float(group["lr"]) for group in optimizer.param_groups]

    return made(model, body, optimizer=optimizer, schedule=schedule)


def lbfgs() -> Made:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3, history_size=4)

    def body(progress: Any, step: int, batch: Any) -> Any:
        def closure() -> Any:
            optimizer.zero_grad()
            return learn(model, batch)

        return optimizer.step(closure)

    return made(model, body, optimizer=optimizer)


def parametrised() -> Made:
    """Power iterations and norms live in buffers and in parametrised weights."""
    model = nn.Sequential(
        parametrizations.spectral_norm(nn.Linear(4, 6)),
        nn.BatchNorm1d(6),
        parametrizations.weight_norm(nn.Linear(6, 1)),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)

    def body(progress: Any, step: int, batch: Any) -> Any:
        if len(batch) > 1:
            learn(model, batch)
            optimizer.step()
            optimizer.zero_grad()

    return made(model, body, optimizer=optimizer)


def adversaries() -> Made:
    """The second optimizer steps each third time, and gradients of the first model's loss stay in the other one."""
    maker, critic = nn.Linear(4, 4), nn.Linear(4, 1)
    first, second = torch.optim.Adam(maker.parameters()), torch.optim.RMSprop(critic.parameters())

    def body(progress: Any, step: int, batch: Any) -> Any:
        critic(maker(batch)).mean().backward()
        first.step()
        first.zero_grad()
        if step % 3 == 2:
            second.step()
            second.zero_grad()
        return [each.detach().clone() for each in critic.parameters()]

    return made(maker, body, critic=critic, first=first, second=second)


def pruned() -> Made:
    """Masks come before the session is opened, as a script makes them in each process."""
    model = nn.Linear(4, 1)
    prune.l1_unstructured(model, "weight", amount=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body(progress: Any, step: int, batch: Any) -> Any:
        learn(model, batch)
        optimizer.step()
        optimizer.zero_grad()

    return made(model, body, optimizer=optimizer)


def built_at_the_first_batch() -> Made:
    """Lazy layers know their shape from the first batch on."""
    model = nn.Sequential(nn.LazyLinear(3), nn.ReLU(), nn.LazyLinear(1))
    model(ROWS[0][None])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def body(progress: Any, step: int, batch: Any) -> Any:
        learn(model, batch)
        optimizer.step()
        optimizer.zero_grad()

    return made(model, body, optimizer=optimizer)


def thawed_layer_by_layer() -> Made:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model[0].requires_grad_(False)

    def body(progress: Any, step: int, batch: Any) -> Any:
        if step == 5:
            model[0].requires_grad_(True)
        learn(model, batch)
        optimizer.step()
        optimizer.zero_grad()

    return made(model, body, optimizer=optimizer)


def one_weight_in_two_modules() -> Made:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    head = nn.Linear(4, 4)
    head.weight = model[0].weight
    optimizer = torch.optim.SGD([*model.parameters(), head.bias], lr=0.1)

    def body(progress: Any, step: int, batch: Any) -> Any:
        (learn(model, batch) + head(batch).square().mean()).detach()
        head(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        return head.bias.detach().clone(), head.weight is model[0].weight

    return made(model, body, head=head, optimizer=optimizer)


SITUATIONS = [
    loss_of_an_open_window,
    clipping_by_earlier_norms,
    average_with_a_warmup,
    swa,
    scaler_before_its_first_use,
    rate_in_a_tensor,
    lbfgs,
    parametrised,
    adversaries,
    pruned,
    built_at_the_first_batch,
    thawed_layer_by_layer,
    one_weight_in_two_modules,
]


@pytest.mark.parametrize("make", SITUATIONS, ids=lambda make: make.__name__)
def test_three_resumes_train_as_an_uninterrupted_run(tmp_path: Path, make: Callable[[], Made]) -> None:
    whole, cut = whole_and_cut(tmp_path, make)
    assert cut == whole
    assert "nan" not in str(whole)


class Averaged(nn.Module):
    """Counts its updates in a plain number, and keeps a queue in a buffer that is not persistent."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 1)
        self.updates = 0
        self.rate = 0.5
        self.register_buffer("queue", torch.zeros(3), persistent=False)

    def update(self, *, queue: bool) -> None:
        if queue:
            self.queue.add_(1)
        else:
            self.updates += 1


@pytest.mark.parametrize("queue", [False, True], ids=["number", "buffer"])
def test_what_a_module_counts_outside_its_state_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, queue: bool
) -> None:
    def make() -> Made:
        average = Averaged()
        return made(nn.Linear(4, 1), lambda *_: average.update(queue=queue), average=average)

    every = CheckpointPolicy(every_steps=2, max_overhead=None)
    run(tmp_path, make, checkpoints=every)
    said = [each for each in caplog.messages if each.startswith("not resumed: ")]
    name = "queue" if queue else "updates"
    assert said == [
        f"not resumed: average.{name} changes during the training and is in no state_dict(): register_buffer() keeps"
        " it, or an object of its own in state="
    ]


def test_what_a_module_is_set_to_once_is_no_counter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def make() -> Made:
        average = Averaged()

        def body(progress: Any, step: int, batch: Any) -> None:
            if step == 0:
                average.rate, average.updates = 0.9, 1

        return made(nn.Linear(4, 1), body, average=average)

    run(tmp_path, make, checkpoints=CheckpointPolicy(every_steps=2, max_overhead=None))
    assert "not resumed" not in caplog.text


@pytest.mark.parametrize("is_given", [False, True], ids=["forgotten", "given"])
@pytest.mark.parametrize("is_enabled", [False, True], ids=["off", "on"])
def test_a_scaler_that_is_not_in_state_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, is_given: bool, is_enabled: bool
) -> None:
    """Its scale begins anew after a resume: steps are skipped, and the rate of a schedule is not where it was."""

    def make() -> Made:
        model, scaler = net(), torch.amp.GradScaler("cpu", init_scale=8.0, enabled=is_enabled)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        schedule = lr_scheduler.ConstantLR(optimizer)

        def body(progress: Any, step: int, batch: Any) -> None:
            scaler.scale(model(batch).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            schedule.step()

        state = {"optimizer": optimizer, "schedule": schedule, **({"scaler": scaler} if is_given else {})}
        return made(model, body, **state)

    run(tmp_path, make)
    assert ("a GradScaler steps SGD that is not in state=" in caplog.text) is (is_enabled and not is_given)
