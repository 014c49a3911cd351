"""A model is the same model whatever wraps its parts: names in our files know no wrappers."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from trainhooks import training_progress_context
from trainhooks.pytorch.checkpoint import identity, wrapper
from trainhooks.storage.checkpoints import CHECKPOINTS, published

# What torch.compile imports is deprecated by torch itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


@pytest.fixture(autouse=True)
def eager() -> Iterator[None]:
    """Wrap as torch.compile does, and compute without compiling: names are what matters here."""
    with torch.compiler.set_stance("force_eager"):
        yield


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)), nn.Linear(3, 1))


def compiled_inside() -> nn.Module:
    model = body()
    model[0] = torch.compile(model[0], backend="eager")  # type: ignore[assignment]
    model[1][0] = torch.compile(model[1][0], backend="eager")  # type: ignore[index]
    return model


def compiled_whole() -> nn.Module:
    return torch.compile(compiled_inside(), backend="eager")  # type: ignore[return-value]


def checkpointed() -> nn.Module:
    model = body()
    model[1] = checkpoint_wrapper(model[1])  # type: ignore[no-untyped-call]
    return model


def data_parallel() -> nn.Module:
    return nn.DataParallel(compiled_inside())


Make = Callable[[], nn.Module]
BEFORE = {"class", "parameter shapes"}
"""What a release before wrote of an object beside its state."""
KINDS: list[Make] = [body, compiled_inside, compiled_whole, checkpointed, data_parallel]


@pytest.mark.parametrize("make", KINDS)
def test_plain_names_are_those_of_the_plain_model(make: Make) -> None:
    model, plain = make(), body()
    assert list(wrapper.plain(model, model.state_dict())) == list(plain.state_dict())
    assert [name for name, _ in wrapper.named_parameters(model)] == [name for name, _ in plain.named_parameters()]


def train(out: Path, model: nn.Module, until: int) -> int:
    optimizer = torch.optim.Adam(model.parameters())
    first = -1
    with training_progress_context({"seed": 1}, out, 8, state={"model": model, "optimizer": optimizer}) as progress:
        progress.loader([torch.full((2,), float(row)) for row in range(6)], batch_size=2)
        for step, batch in progress.steps():
            first = step if first < 0 else first
            loss = model(batch).pow(2).mean()
            loss.backward()  # gradients of an open window are saved, by name
            if step % 2:
                optimizer.step()
                optimizer.zero_grad()
            progress.update_metrics(step, loss=loss)
            if step + 1 == until:
                progress.save_checkpoint()
                break
    return first


@pytest.mark.parametrize("after", KINDS)
@pytest.mark.parametrize("before", KINDS)
def test_wrapped_on_one_side_only_it_resumes_exactly(tmp_path: Path, before: Make, after: Make) -> None:
    torch.manual_seed(3)
    whole = body()
    state = {name: value.clone() for name, value in whole.state_dict().items()}
    train(tmp_path / "whole", whole, 8)
    first, second = before(), after()
    live = wrapper.live_names(first, first.state_dict())
    first.load_state_dict({live[name]: value for name, value in state.items()})
    assert train(tmp_path / "cut", first, 3) == 0
    assert train(tmp_path / "cut", second, 8) == 3
    mine, other = whole.state_dict(), wrapper.plain(second, second.state_dict())
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    for checkpoint in published(tmp_path / "cut" / CHECKPOINTS):
        assert "_orig_mod" not in (checkpoint.path / "state.json").read_text()


def test_a_checkpoint_with_wrappers_names_of_a_release_before_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, kind = compiled_inside(), identity.kind_of
    with monkeypatch.context() as patch:
        patch.setattr(wrapper, "plain_name", lambda root, name: name)
        patch.setattr(
            identity, "kind_of", lambda *given: {name: _ for name, _ in kind(*given).items() if name in BEFORE}
        )
        train(tmp_path, first, 3)
    (checkpoint,) = published(tmp_path / CHECKPOINTS)
    assert "_orig_mod" in (checkpoint.path / "state.json").read_text()
    second = body()
    with training_progress_context(
        {"seed": 1}, tmp_path, 8, state={"model": second, "optimizer": torch.optim.Adam(second.parameters())},
        drift={"model.*": "allow"},
    ) as progress:  # fmt: skip
        assert progress.current_step == 3
        pairs = zip(first.parameters(), second.parameters(), strict=True)
        assert all(torch.equal(one, other) and torch.equal(one.grad, other.grad) for one, other in pairs)
