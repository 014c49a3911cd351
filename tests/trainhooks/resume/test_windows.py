"""Loops that step, zero and call backward in any order, and change what they train, resume to the bit."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import trainhooks
from trainhooks import CheckpointPolicy, training_progress_context
from trainhooks.errors import ConfigInvalid, StateUnsupported

TOTAL = 14
ROWS = [torch.tensor([float(row), float(row % 3)]) for row in range(9)]

Body = Callable[[int, torch.Tensor, dict[str, Any]], None]


def objects() -> dict[str, Any]:
    torch.manual_seed(4)
    model, critic = nn.Sequential(nn.Linear(2, 4), nn.Tanh(), nn.Linear(4, 1)), nn.Linear(2, 1)
    return {
        "model": model,
        "critic": critic,
        "optimizer": torch.optim.Adam(model.parameters(), lr=0.05),
        "other": torch.optim.SGD(critic.parameters(), lr=0.05, momentum=0.9),
    }


def loss_of(batch: torch.Tensor, state: dict[str, Any]) -> torch.Tensor:
    return (state["model"](batch) - state["critic"](batch)).pow(2).mean()


def usual(step: int, batch: torch.Tensor, state: dict[str, Any]) -> None:
    state["optimizer"].zero_grad()
    loss_of(batch, state).backward()
    state["optimizer"].step()


def zero_every_fourth(step: int, batch: torch.Tensor, state: dict[str, Any]) -> None:
    loss_of(batch, state).backward()
    state["optimizer"].step()
    if step % 4 == 3:
        state["optimizer"].zero_grad()


def zero_in_place(step: int, batch: torch.Tensor, state: dict[str, Any]) -> None:
    loss_of(batch, state).backward()
    state["optimizer"].step()
    if step % 3 == 2:
        state["optimizer"].zero_grad(set_to_none=False)


def step_first(step: int, batch: torch.Tensor, state: dict[str, Any]) -> None:
    """A window of three that begins with the step of the one before."""
    if step % 3 == 0:
        state["optimizer"].step()
        state["optimizer"].zero_grad()
    loss_of(batch, state).backward()


def step_then_backward(step: int, batch: torch.Tensor, state: dict[str, Any]) -> None:
    state["optimizer"].step()
    loss_of(batch, state).backward()


def gan(step: int, batch: torch.Tensor, state: dict[str, Any]) -> None:
    """Each backward fills the gradients of both; zero_grad comes only after the own step."""
    loss_of(batch, state).backward()
    state["other"].step()
    state["other"].zero_grad()
    (-loss_of(batch, state)).backward()
    state["optimizer"].step()
    state["optimizer"].zero_grad()


def habit_that_ends(step: int, batch: torch.Tensor, state: dict[str, Any]) -> None:
    """Drops its gradients for long, and then no more."""
    if step < 6:
        state["optimizer"].zero_grad()
    loss_of(batch, state).backward()
    state["optimizer"].step()


def momentum_of_gradients(step: int, batch: torch.Tensor, state: dict[str, Any]) -> None:
    """Decays gradients by hand, past autograd's versions."""
    loss_of(batch, state).backward()
    state["optimizer"].step()
    for parameter in state["model"].parameters():
        if parameter.grad is not None:
            parameter.grad.data.mul_(0.5)


def unfreeze(step: int, batch: torch.Tensor, state: dict[str, Any]) -> None:
    if step == 0:
        state["model"][0].requires_grad_(False)
    if step == 4:
        state["model"][0].requires_grad_(True)
    usual(step, batch, state)


def add_a_group(step: int, batch: torch.Tensor, state: dict[str, Any]) -> None:
    if step == 4:
        state["optimizer"].add_param_group({"params": list(state["critic"].parameters()), "lr": 0.01})
    usual(step, batch, state)


BODIES: list[Body] = [
    usual, zero_every_fourth, zero_in_place, step_first, step_then_backward, gan, habit_that_ends,
    momentum_of_gradients, unfreeze, add_a_group,
]  # fmt: skip


def train(out: Path, body: Body, cuts: list[int], *, ends_cut: bool = False, **options: Any) -> dict[str, Any]:
    """Train to the end, in as many attempts as there are cuts and one more; returns the objects of the last."""
    state: dict[str, Any] = {}
    for until in cuts if ends_cut else [*cuts, TOTAL]:
        state = objects()
        with training_progress_context({"seed": 1}, out, TOTAL, state=state, database=False, **options) as progress:
            progress.loader(ROWS, batch_size=2)
            for step, batch in progress.steps():
                body(step, batch, state)
                progress.update_metrics(step, loss=1.0)
                if step + 1 == until < TOTAL:
                    progress.save_checkpoint()
                    break
    return state


def bits(state: dict[str, Any]) -> list[torch.Tensor]:
    found = [value for name in ("model", "critic") for value in state[name].state_dict().values()]
    return found + [
        value for name in ("optimizer", "other") for each in state[name].state.values() for value in each.values()
    ]


@pytest.mark.parametrize("cuts", [[1], [2, 3], [5], [7, 8, 9], [12]], ids=str)
@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_any_order_resumes_to_the_bit(tmp_path: Path, body: Body, cuts: list[int]) -> None:
    whole, resumed = train(tmp_path / "whole", body, []), train(tmp_path / "cut", body, cuts)
    for one, other in zip(bits(whole), bits(resumed), strict=True):
        assert torch.equal(torch.as_tensor(one), torch.as_tensor(other))


def test_always_keeps_the_values_of_every_gradient(tmp_path: Path) -> None:
    sizes = []
    for gradients in ("auto", "always"):
        policy = CheckpointPolicy(gradients=gradients)
        train(tmp_path / gradients, usual, [9], checkpoints=policy)
        newest = sorted((tmp_path / gradients / "checkpoints").glob("step-*"))[0]
        sizes.append((newest / "rank-00000.safetensors").stat().st_size)
    assert sizes[1] - sizes[0] >= 4 * (2 * 4 + 4 + 4 + 1)
    with pytest.raises(ConfigInvalid, match="gradients"):
        CheckpointPolicy(gradients="never")


def test_sparse_gradients_of_an_open_window(tmp_path: Path) -> None:
    def run(out: Path, cuts: list[int]) -> torch.Tensor:
        for until in [*cuts, 8]:
            torch.manual_seed(1)
            model = nn.Embedding(10, 3, sparse=True)
            optimizer = torch.optim.SparseAdam(list(model.parameters()), lr=0.1)
            state = {"model": model, "optimizer": optimizer}
            with training_progress_context({}, out, 8, state=state, database=False) as progress:
                progress.loader([*range(10)], batch_size=2)
                for step, batch in progress.steps():
                    model(batch).pow(2).sum().backward()
                    if step % 3 == 2:
                        optimizer.step()
                        optimizer.zero_grad()
                    if step + 1 == until < 8:
                        progress.save_checkpoint()
                        break
        return model.weight.detach()

    assert torch.equal(run(tmp_path / "whole", []), run(tmp_path / "cut", [1, 5]))


def test_flags_that_were_saved_win_and_are_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(tmp_path, unfreeze, [2], ends_cut=True)
    found = trainhooks.peek(tmp_path)
    assert found is not None
    assert (found.step, found.frozen["model"]) == (2, ["0.weight", "0.bias"])
    assert found.groups["optimizer"][0][0] == "model.0.weight"
    state = objects()
    with training_progress_context({"seed": 1}, tmp_path, TOTAL, state=state, database=False):
        assert not state["model"][0].weight.requires_grad
    assert "requires_grad of 2 parameters is as it was saved, 0.weight among them" in caplog.text
    state = objects()
    with training_progress_context(
        {"seed": 1}, tmp_path, TOTAL, state=state, database=False, restore={"requires_grad": "live"}
    ):
        assert state["model"][0].weight.requires_grad


def test_a_group_of_parameters_without_a_name_is_refused_and_leaves_all_as_it_was(tmp_path: Path) -> None:
    extra = nn.Parameter(torch.zeros(2))

    def strange(step: int, batch: torch.Tensor, state: dict[str, Any]) -> None:
        if step == 1:
            state["optimizer"].add_param_group({"params": [extra]})
        usual(step, batch, state)

    with pytest.raises(StateUnsupported, match="cannot be found again"):
        train(tmp_path, strange, [3])
    state = objects()
    before = copy.deepcopy(state["model"].state_dict())
    with pytest.raises(StateUnsupported):
        training_progress_context({"seed": 1}, tmp_path, TOTAL, state=state, database=False).__enter__()
    assert len(state["optimizer"].param_groups) == 1
    assert all(torch.equal(value, state["model"].state_dict()[name]) for name, value in before.items())


def test_what_nobody_handed_over_is_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model, log_alpha = nn.Linear(2, 1), nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([*model.parameters(), log_alpha])
    torch.optim.lr_scheduler.StepLR(optimizer, 3)

    class Sampler:
        def __init__(self) -> None:
            self.rng = torch.Generator()

        def state_dict(self) -> dict[str, Any]:
            return {}

        def load_state_dict(self, state: dict[str, Any]) -> None: ...

    forgotten = torch.optim.SGD(model.parameters(), lr=0.1)
    state = {"model": model, "optimizer": optimizer, "sampler": Sampler()}
    with training_progress_context({}, tmp_path, 3, state=state, database=False) as progress:
        progress.loader(ROWS)
        told = 0
        for _, batch in progress.steps():
            model(batch).sum().backward()
            forgotten.step()
            told = told or caplog.text.count("a SGD steps that is not in state=")
    said = caplog.text
    assert "optimizer trains 1 parameters that no object in state= holds, the first of shape (1,)" in said
    assert "a scheduler drives optimizer and is not in state=" in said
    assert "sampler.rng is a random number generator of its own" in said
    assert 0 < said.count("a SGD steps that is not in state=") == told, "at its first step, and not again"
