"""A module's state is what its own `state_dict()` says, whether that is called or not."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from trainhooks.pytorch.checkpoint import module_state
from trainhooks.pytorch.checkpoint.wrapper import Walked


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Linear(2, 3, bias=False),
        nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.MultiheadAttention(4, 2)),
        nn.ModuleDict({"a": nn.ParameterList([nn.Parameter(torch.ones(2))]), "b": nn.Embedding(2, 2)}),
    )


def tied() -> nn.Module:
    model = nn.Sequential(nn.Embedding(3, 2), nn.Linear(2, 3, bias=False))
    model[1].weight = model[0].weight
    return model


def with_buffers() -> nn.Module:
    model = nn.Module()
    model.register_buffer("mask", torch.ones(2), persistent=False)
    model.register_buffer("mean", torch.ones(3))
    model.register_buffer("none", None)
    model.register_parameter("absent", None)
    model.add_module("gone", None)
    return model


def replaced() -> nn.Module:
    """As after `model.to()` under torch.__future__ flags, or a checkpoint that was assigned."""
    model = nn.Linear(2, 2)
    model.weight = nn.Parameter(torch.zeros(2, 2), requires_grad=False)
    return model


class Extra(nn.Linear):
    def get_extra_state(self) -> int:
        return 7

    def set_extra_state(self, state: int) -> None: ...


class Own(nn.Linear):
    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}own"] = self.weight.detach() * 2


class Whole(nn.Linear):
    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict(whole=self.weight.detach())


class Versioned(nn.Linear):
    _version = 9


def shared() -> nn.Module:
    one = nn.Linear(2, 2)
    return nn.Sequential(one, nn.Sequential(one))


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    def hook(module: nn.Module, state: Any, prefix: str, metadata: Any) -> None:
        state.pop(f"{prefix}bias")

    model[1].register_state_dict_post_hook(hook)
    return model


def hooked_before() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))

    def hook(module: Any, prefix: str, keep_vars: bool) -> None:
        module.weight.data.fill_(5.0)

    model[0].register_state_dict_pre_hook(hook)
    return model


def own_method() -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2))
    model[0]._save_to_state_dict = lambda destination, prefix, keep_vars: destination.update({f"{prefix}x": 1})
    return model


def wrapped() -> nn.Module:
    return nn.Sequential(nn.DataParallel(nn.Linear(2, 2)))


READ: list[Callable[[], nn.Module]] = [plain, tied, with_buffers, replaced, lambda: Versioned(2, 2), nn.Identity]
CALLED: list[Callable[[], nn.Module]] = [
    lambda: nn.Sequential(Extra(2, 2)),
    lambda: nn.Sequential(nn.Linear(1, 1), Own(2, 2)),
    lambda: Whole(2, 2),
    shared,
    hooked,
    hooked_before,
    own_method,
]


def spelled(state: Any) -> Any:
    members = [
        (
            key,
            (value.data_ptr(), value.shape, value.stride(), value.dtype) if hasattr(value, "shape") else value,
        )
        for key, value in state.items()
        if not key.endswith("own")
    ]
    return type(state), list(state), members, getattr(state, "_metadata", None)


def state_of(model: nn.Module) -> Any:
    return module_state.state_of(model, Walked(model))


@pytest.mark.parametrize("make", READ)
def test_a_plain_module_is_read(make: Callable[[], nn.Module]) -> None:
    model = make()
    wanted = spelled(model.state_dict())
    found = state_of(model)
    assert spelled(found) == wanted
    assert module_state._read(Walked(model)) is not None
    assert list(found._metadata.items()) == list(model.state_dict()._metadata.items())  # type: ignore[attr-defined]


@pytest.mark.parametrize("make", [*READ, *CALLED])
def test_what_has_its_own_way_is_asked(make: Callable[[], nn.Module]) -> None:
    model = make()
    assert spelled(state_of(model))[1:] == spelled(model.state_dict())[1:]


def test_a_wrapper_is_left_out_of_the_names() -> None:
    assert list(state_of(wrapped())) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("method", ["state_dict", "_save_to_state_dict", "get_extra_state"])
def test_a_library_that_changes_torchs_class_is_asked(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def changed(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return OrderedDict(changed=1)

    monkeypatch.setattr(nn.Module, method, changed)
    model = nn.Linear(2, 2)
    assert module_state._read(Walked(model)) is None
    if method == "state_dict":
        assert state_of(model) == {"changed": 1}
