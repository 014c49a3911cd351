"""A plan that is kept between saves captures what a fresh look captures, and holds nothing of the training."""

import gc
import json
import random
import weakref
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from trainhooks.errors import StateUnsupported
from trainhooks.pytorch.checkpoint import plan
from trainhooks.pytorch.checkpoint.capture import Part, capture
from trainhooks.pytorch.checkpoint.plan import Planned
from trainhooks.pytorch.checkpoint.state import TrainingState


def looked_at(part: Part) -> tuple[Any, ...]:
    """All that a save makes of it."""
    tensors = [(name, each.data_ptr(), each.stride(), each.grad_fn) for name, each in part.tensors.items()]
    paths = [(path, each.data_ptr(), each.shape, each.dtype) for path, each in part.paths.items()]
    return json.dumps(part.describe()), tensors, paths


def state() -> dict[Any, Any]:
    weight, moments = torch.ones(3, 3), {n: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(3)} for n in range(4)}
    return {
        "weight": weight,
        "tied": weight,
        "empty": torch.empty(0),
        "parameter": nn.Parameter(torch.ones(2)),
        "state": moments,
        "groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0, 1, 2, 3], "foreach": None, "of": {}}],
        "ordered": OrderedDict(b=torch.ones(1), a=[1.5, float("nan"), "x", b"y", torch.Size([2]), torch.float16]),
        "counted": Counter({30: 1}),
        "default": defaultdict(int, {"$x": np.float64(0.5)}),
        "array": np.arange(4),
        "set": {3, 1, 2},
        "by_place": {0: 1, 1: True, None: -0.0},
    }


def outcome(take: Callable[..., Part], value: Any) -> Any:
    """What a capture comes to, or the words of its refusal."""
    try:
        return looked_at(take(value, of="it"))
    except StateUnsupported as refusal:
        return refusal.message


def seen(value: Any) -> Planned:
    """One that has a plan of a value."""
    planned = Planned()
    planned.capture(value, of="it")
    return planned


def refuse(*given: Any, **named: Any) -> Any:
    raise AssertionError("it was looked at anew")


def test_the_same_tree_is_captured_by_its_plan_with_the_values_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    value = state()
    planned = seen(value)
    value["groups"][0]["lr"], value["groups"][0]["params"] = 0.2, [7, 8]
    value["weight"] = value["tied"] = torch.full((3, 3), 7.0)
    value["state"][2] = {"step": torch.tensor(9.0), "exp_avg": torch.ones(3)}
    value["array"], value["set"] = np.arange(7), {"z"}
    value["ordered"]["a"][1:3] = [float("inf"), "y"]
    wanted = looked_at(capture(value, of="it"))
    monkeypatch.setattr(plan, "capture", refuse)
    assert looked_at(planned.capture(value, of="it")) == wanted


def quantised() -> torch.Tensor:
    return torch._empty_affine_quantized([3], scale=0.1, zero_point=0, dtype=torch.qint8)


def sparse(value: dict[Any, Any]) -> None:
    value["state"][1]["exp_avg"] = torch.eye(3).to_sparse()


def untie(value: dict[Any, Any]) -> None:
    value["tied"] = value["weight"].clone()


CHANGES: dict[str, Callable[[dict[Any, Any]], Any]] = {
    "another member": lambda value: value.update(new=1),
    "one less": lambda value: value.pop("by_place"),
    "another name": lambda value: value["state"][1].update(other=value["state"][1].pop("exp_avg")),
    "another order": lambda value: value.update(weight=value.pop("weight")),
    "another order of two alike": lambda value: value["state"][1].update(step=value["state"][1].pop("step")),
    "a key of another type": lambda value: value.update(by_place={False: 1, 1: True, None: -0.0}),
    "a value of another type": lambda value: value.update(by_place={0: 1, 1: 1, None: -0.0}),
    "a number becomes a tensor": lambda value: value["groups"][0].update(lr=torch.tensor(0.1)),
    "a tensor becomes a number": lambda value: value["state"][0].update(step=3.0),
    "another container": lambda value: value.update(ordered=dict(value["ordered"])),
    "a list is longer": lambda value: value["ordered"]["a"].append(1),
    "a list of tuples": lambda value: value["groups"][0].update(betas=[0.9, 0.999]),
    "integers and a text": lambda value: value["groups"][0].update(params=[0, "1"]),
    "integers and a truth": lambda value: value["groups"][0].update(params=[0, True]),
    "no integers": lambda value: value["groups"][0].update(params=[]),
    "untied": untie,
    "tied": lambda value: value["state"][1].update(exp_avg=value["state"][2]["exp_avg"]),
    "tied, of another shape": lambda value: value.update(tied=value["weight"].view(9)),
    "tied, transposed": lambda value: value.update(tied=value["weight"].t()),
    "tied, of another type": lambda value: value.update(tied=value["weight"].view(torch.int32)),
    "no longer empty": lambda value: value.update(empty=torch.ones(2)),
    "empty": lambda value: value.update(weight=torch.empty(0, 3), tied=torch.empty(3, 0)),
    "another element type": lambda value: value["state"][3].update(exp_avg=torch.zeros(3, dtype=torch.float64)),
    "one that json has no name of": lambda value: value["state"][3].update(exp_avg=torch.zeros(3).cfloat().cdouble()),
    "with a graph": lambda value: value["state"][3].update(exp_avg=torch.zeros(3, requires_grad=True) * 2),
    "a parameter": lambda value: value["state"][3].update(exp_avg=nn.Parameter(torch.zeros(3), requires_grad=False)),
    "conjugated": lambda value: value["state"][3].update(exp_avg=torch.zeros(3).cfloat().conj()),
    "an array with a new type": lambda value: value.update(array=np.arange(4.0)),
    "two of one path": lambda value: value.update({"a.b": torch.ones(1), "a": {"b": torch.ones(1)}}),
    "a set with a tensor": lambda value: value.update(set={torch.ones(1)}),
    "a reserved name": lambda value: value["state"][0].update({"$tensor": 1}),
    "another class of numbers": lambda value: value["default"].update({"$x": np.float32(0.5)}),
    "sparse": sparse,
    "quantised": lambda value: value["state"][1].update(exp_avg=quantised()),
    "on no device": lambda value: value["state"][1].update(exp_avg=torch.empty(3, device="meta")),
    "without a plain form": lambda value: value["state"][1].update(exp_avg=object()),
    "an array of objects": lambda value: value.update(array=np.array([object()])),
}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("change", CHANGES)
def test_what_has_changed_is_captured_as_by_a_fresh_look(change: str) -> None:
    value = state()
    planned = seen(value)
    CHANGES[change](value)
    for _ in range(3):  # by no plan, then by a new one
        assert outcome(planned.capture, value) == outcome(capture, value)


def test_nothing_that_changes_later_reaches_what_was_captured() -> None:
    value = state()
    planned = seen(value)
    part = planned.capture(value, of="it")
    wanted = json.dumps(capture(deepcopy(value), of="it").describe())
    value["groups"][0]["params"].append(5)
    value["groups"][0]["lr"] = 9.0
    value["ordered"]["a"].clear()
    value["array"][:] = 0
    value["set"].clear()
    value["counted"][30] = 8
    value["state"].clear()
    value["by_place"].clear()
    assert json.dumps(part.describe()) == wanted


def test_a_plan_holds_nothing_of_the_training() -> None:
    value = state()
    planned = seen(value)
    part = planned.capture(value, of="it")
    gone = [weakref.ref(value["weight"]), weakref.ref(value["state"][0]["step"]), weakref.ref(value["set"])]
    del value, part
    gc.collect()
    assert [each() for each in gone] == [None] * 3
    assert planned._plan is not None


def test_a_state_that_never_stays_the_same_gets_no_plan() -> None:
    planned = Planned()
    for size in range(12):
        value = {"weight": torch.ones(1), "history": [0.5] * size}
        assert looked_at(planned.capture(value, of="it")) == looked_at(capture(value, of="it"))
    assert planned._plan is None


def test_random_trees_and_random_changes() -> None:
    rnd = random.Random(5)
    pool = [torch.ones(2), torch.zeros(2, 2), torch.ones(()), torch.empty(0), nn.Parameter(torch.ones(1))]

    def tree(depth: int) -> Any:
        if depth == 0 or rnd.random() < 0.3:
            leaf = rnd.choice([None, True, 1, 0.5, "x", b"z", (), [], {}, [1, 2], {1}, np.ones(1), torch.float16])
            return rnd.choice([deepcopy(leaf), rnd.choice(pool), torch.ones(rnd.randrange(3))])
        children = [tree(depth - 1) for _ in range(rnd.randrange(4))]
        return rnd.choice(
            [
                lambda: children,
                lambda: tuple(children),
                lambda: dict(enumerate(children)),
                lambda: OrderedDict((f"n{at}", each) for at, each in enumerate(children)),
                lambda: {rnd.choice(["a", "b", "$c", "d.e"]): each for each in children},
            ]
        )()

    hits = 0
    for _ in range(150):
        value = {"first": torch.ones(2), "tree": tree(3), "second": tree(3)}
        planned = Planned()
        for _ in range(4):
            by_plan = planned._plan is not None and planned._plan.match(value) is not None
            hits += by_plan
            assert looked_at(planned.capture(value, of="it")) == looked_at(capture(value, of="it"))
            if rnd.random() < 0.4:
                value[rnd.choice(["tree", "second"])] = tree(3)
    assert hits > 100


def test_a_training_is_taken_by_plans_from_its_second_save_on(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters())
    training = TrainingState({"model": model, "optimizer": optimizer})
    for number in range(3):
        model(torch.randn(4, 3)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        if number == 1:
            monkeypatch.setattr(plan, "capture", refuse)
        found, wanted = training.take({"step": number}).parts, training.capture()
        assert {name: looked_at(part) for name, part in found.items()} == {
            name: looked_at(part) for name, part in wanted.items()
        }
