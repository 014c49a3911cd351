"""A training whose resumed attempt goes wrong as people report it: job_situations.py OUTPUT_DIR SITUATION KILL.

SITUATION shows in the second attempt alone, or is how the job is written. KILL: `never`; `term`, a preemption in step
5; `kill:N`, in the middle of step N, once the checkpoint before it is published. One is taken every 3 steps.
"""

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import Dataset

from trainhooks import CheckpointPolicy, training_progress_context

TOTAL, SAVED = 9, 3


class Points(Dataset[torch.Tensor]):
    """Samples that lie elsewhere if they were shuffled anew."""

    def __init__(self, is_shuffled: bool) -> None:
        self.is_shuffled = is_shuffled

    def __len__(self) -> int:
        return 400

    def __getitem__(self, index: int) -> torch.Tensor:
        at = 399 - index if self.is_shuffled else index
        return torch.linspace(0, 1, 4) * at / 400


class WideMoments(torch.optim.Optimizer):
    """Keeps its momentum wider than its parameters; loading it makes them alike (a known trait of torch)."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1})

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for each in group["params"]:
                wide = self.state[each].setdefault("momentum", torch.zeros(each.shape, dtype=torch.float64))
                wide.mul_(0.9).add_(each.grad.double())
                each.data.add_(wide.to(each.dtype), alpha=-group["lr"])


class Average:
    """An average of the weights that forgets how fast it moves when it is loaded."""

    def __init__(self) -> None:
        self.rate, self.count = 0.5, 0

    def update(self) -> None:
        self.count += 1
        self.rate = 1 / (1 + self.count)

    def state_dict(self) -> dict[str, Any]:
        return {"rate": self.rate, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Decay:
    """Schedules the weight decay, and writes the one that it was built with while it is loaded."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.count = optimizer, 0

    def step(self) -> None:
        self.count += 1
        self.optimizer.param_groups[0]["weight_decay"] = 0.01 * self.count

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.param_groups[0]["weight_decay"] = 0.01 * self.count
        self.count = state["count"]


class Stale:
    """A schedule that, once loaded, drives an optimizer that nobody steps."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.inner = lr_scheduler.ExponentialLR(optimizer, 0.5)

    def step(self) -> None:
        self.inner.step()

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state)
        self.inner.optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        self.inner.optimizer.param_groups[0]["initial_lr"] = 1.0


class Masters:
    """Weights of more bits, which no state_dict holds."""

    def __init__(self, model: nn.Module) -> None:
        self.of: list[tuple[Any, torch.Tensor]] = [(each, each.detach().double()) for each in model.parameters()]

    def step(self) -> None:
        for each, wide in self.of:
            wide.add_(each.grad.double(), alpha=-1e-5)
            each.data.copy_(wide)


def main() -> None:
    out, situation, kill = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    is_resumed = (out / "checkpoints").exists()

    def meets(name: str) -> bool:
        return situation == name and is_resumed

    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.2), nn.Linear(8, 1))
    if situation == "wide-moments":
        optimizer: Any = WideMoments(model.parameters())
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    average, masters = Average(), Masters(model)
    state: dict[str, Any] = {"model": model, "optimizer": optimizer}
    schedule: Any = None
    if situation == "average":
        state["average"] = average
    elif situation == "decay":
        schedule = state["schedule"] = Decay(optimizer)
    elif situation == "stale-schedule":
        schedule = state["schedule"] = Stale(optimizer)
    policy = CheckpointPolicy(every_steps=SAVED, every_seconds=None, max_overhead=None)
    options: Any = {"state": state, "checkpoints": policy, "drift": {"data.record.*": "allow"}}
    with training_progress_context({"seed": 1}, out, TOTAL, **options) as progress:
        progress.loader(Points(meets("shuffled-anew")), batch_size=8)
        more: Any = None
        if situation == "stream":
            stream: Any = progress.loader(Points(False), name="more", batch_size=2)
            if is_resumed:
                stream.position = replace(stream.position, offset=stream.position.offset + 2)
            more = iter(stream)
        if meets("pretrained"):
            model.load_state_dict({name: each + 1 for name, each in model.state_dict().items()})
        if meets("late-schedule"):
            lr_scheduler.LambdaLR(optimizer, lambda count: 0.5)
        if meets("window"):
            optimizer.zero_grad()
        stepping = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9) if situation == "rebuilt" else optimizer
        for step, batch in progress.steps():
            if more is not None:
                batch = torch.cat([batch, next(more)])
            loss = model(batch).square().mean()
            loss.backward()
            if kill == f"kill:{step}":
                while not (out / "checkpoints" / f"step-{step // SAVED * SAVED:09}").exists():
                    time.sleep(0.002)
                os.kill(os.getpid(), signal.SIGKILL)
            if kill == "term" and step == 5:
                os.kill(os.getpid(), signal.SIGTERM)
            if situation == "masters":
                masters.step()
                optimizer.step()
            elif situation != "window" or step % 4 == 3:
                stepping.step()
            if situation != "window" or step % 4 == 3:
                stepping.zero_grad()
            if schedule is not None:
                schedule.step()
            average.update()
            progress.update_metrics(step=step, loss=loss, learning_rate=optimizer.param_groups[0]["lr"])
            if step == SAVED + 1:
                progress.flush()


if __name__ == "__main__":
    main()
