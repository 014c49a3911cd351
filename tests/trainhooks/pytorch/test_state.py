"""Whatever a training is made of comes back as it was, or is refused by name."""

import io
import math
import random
from collections import Counter, OrderedDict
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

from trainhooks.core.policy import CheckpointPolicy
from trainhooks.errors import StateUnsupported
from trainhooks.pytorch import saver as savers
from trainhooks.pytorch.saver import Saver
from trainhooks.pytorch.state import TrainingState
from trainhooks.storage.checkpoints import Checkpoint, CheckpointStore

SYNCHRONOUS = CheckpointPolicy(asynchronous=False)


def save(root: Path, objects: dict[str, Any], progress: Any = None) -> Checkpoint:
    saver = Saver(CheckpointStore(root, "feed"), TrainingState(objects), SYNCHRONOUS, attempt=1)
    checkpoint = saver.save(1, progress, {})
    assert checkpoint is not None
    return checkpoint


def round_trip(root: Path, value: Any) -> Any:
    return savers.load(save(root, {}, value), TrainingState({}))


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
def test_a_training_goes_on_as_if_nothing_had_been(tmp_path: Path, optimizer: str, scheduler: str) -> None:
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


ODD_TENSORS = {
    "transposed": torch.arange(12.0).reshape(3, 4).t(),
    "strided": torch.arange(20.0)[::3],
    "expanded": torch.tensor([1.0]).expand(5),
    "channels_last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "zero_size": torch.zeros(0, 7),
    "scalar": torch.tensor(3.25),
    "complex64": torch.randn(3, dtype=torch.complex64),
    "complex128": torch.randn(2, 3, dtype=torch.complex128),
    "complex128_scalar": torch.tensor(1 + 2j, dtype=torch.complex128),
    "conjugated": torch.randn(3, dtype=torch.complex64).conj(),
    "negated": torch.randn(3, dtype=torch.complex64).conj().imag,
    "bfloat16": torch.randn(5, dtype=torch.bfloat16),
    "float16": torch.randn(5, dtype=torch.float16),
    "float8_e4m3": torch.randn(5).to(torch.float8_e4m3fn),
    "float8_e5m2": torch.randn(5).to(torch.float8_e5m2),
    "float8_fnuz": torch.randn(5).to(torch.float8_e4m3fnuz),
    "float8_scale": torch.ones(5).to(torch.float8_e8m0fnu),
    "uint16": torch.arange(5).to(torch.uint16),
    "uint64": torch.arange(5).to(torch.uint64),
    "bool": torch.tensor([True, False]),
    "special": torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45]),
    "parameter": nn.Parameter(torch.randn(3)),
    "subclass": torch.randn(3).as_subclass(type("Named", (torch.Tensor,), {})),
    "inference": torch.inference_mode()(lambda: torch.randn(3))(),
}


@pytest.mark.parametrize("name", ODD_TENSORS)
def test_tensors_of_every_kind(tmp_path: Path, name: str) -> None:
    tensor = ODD_TENSORS[name]
    back = round_trip(tmp_path, {"deep": [tensor, {"again": tensor}]})
    for found in (back["deep"][0], back["deep"][1]["again"]):
        assert type(found) is torch.Tensor
        assert found.dtype == tensor.dtype
        assert found.shape == tensor.shape
        wanted = tensor.detach().as_subclass(torch.Tensor).resolve_conj().resolve_neg().contiguous()
        assert bytes(found.reshape(-1).view(torch.uint8).tolist()) == bytes(
            wanted.reshape(-1).view(torch.uint8).tolist()
        )


PLAIN = [
    None,
    True,
    3,
    2**200,
    -0.5,
    math.nan,
    -math.inf,
    1 + 2j,
    "ü\ud800\x00",
    b"\x00\xff",
    (1, (2, [3])),
    {"$tensor": 1},
    {"$dict": []},
    {1: "a", (2, 3): "b", None: "c", 2.5: "d", False: "e"},
    OrderedDict([("b", 1), ("a", 2)]),
    Counter({30: 1, 60: 2}),
    {1, 2, 3},
    frozenset({"x"}),
    torch.Size([2, 3]),
    torch.float16,
    torch.device("cuda", 1),
    np.float64(0.1),
    np.int8(-3),
    np.arange(6, dtype=">i4").reshape(2, 3).T,
    np.zeros((0, 2), dtype=np.float16),
    np.array(["ab", "c"]),
    np.datetime64("2026-11-25"),
    {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}},
    {"__metadata__": torch.ones(2), "": torch.zeros(2)},
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_of_every_kind(tmp_path: Path, value: Any) -> None:
    assert equal(round_trip(tmp_path, {"value": value}), {"value": value})
    assert equal(round_trip(tmp_path, [value]), [value])


class Holder:
    """An object whose state is what a test gives it."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> Any:
        return self.value

    def load_state_dict(self, state: Any) -> None:
        self.value = state


def quantised() -> torch.Tensor:
    return torch._empty_affine_quantized([3], scale=0.1, zero_point=0, dtype=torch.qint8)


def itself() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.empty(3, device="meta"), "has no data"),
        (torch.eye(3).to_sparse(), "torch.sparse_coo"),
        (nn.LazyLinear(3).weight, "not initialised"),
        (torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged), "has the layout"),
        (lambda: 1, "function"),
        (io.StringIO(), "StringIO"),
        (random.Random(1), "Random"),
        (np.array([object()]), "ndarray"),
        (itself(), "contains itself"),
    ],
    ids=str,
)
def test_what_cannot_be_saved_exactly_is_refused_by_name_before_the_training(value: Any, words: str) -> None:
    with pytest.raises(StateUnsupported, match="ema") as raised:
        TrainingState({"ema": Holder({"deep": [value]})})
    assert words in str(raised.value)
    if words != "contains itself":
        assert "deep[0]" in str(raised.value)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_quantised_tensors_are_refused_by_name() -> None:
    with pytest.raises(StateUnsupported, match="quantised"):
        TrainingState({"ema": Holder({"weight": quantised()})})


@pytest.mark.parametrize("name", ["", "a/b", "..", "state", "Manifest", "rank-00000", "ü", "-x", "x" * 200])
def test_names_that_cannot_be_files_are_refused(name: str) -> None:
    with pytest.raises(StateUnsupported, match="file names"):
        TrainingState({name: Holder(1)})


def test_names_that_one_file_system_takes_for_equal_are_refused() -> None:
    with pytest.raises(StateUnsupported, match="file names"):
        TrainingState({"model": Holder(1), "Model": Holder(2)})


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


def unchanged(objects: dict[str, Any], before: dict[str, Any]) -> bool:
    return all(equal(each.state_dict(), before[name]) for name, each in objects.items() if name in before)


def other_head() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 3))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda o: o.pop("scheduler"), "this training lacks the object scheduler"),
        (lambda o: o.update(extra=Holder(1)), "the checkpoint lacks the object extra"),
        (lambda o: o.update(model=other_head()), r"3\.weight was float32\[1, 8\] and is float32\[3, 8\]"),
        (lambda o: o.update(model=nn.Linear(6, 8)), r"lacks the keys 0\.bias, 0\.weight.*"),
        (lambda o: o.update(model=model().double()), r"0\.weight was float32\[8, 6\] and is float64\[8, 6\]"),
        (lambda o: o.update(optimizer=torch.optim.Adam(o["model"].parameters())), "class was AdamW and is Adam"),
        (
            lambda o: o.update(optimizer=torch.optim.AdamW(list(o["model"].parameters())[::-1])),
            "parameter shapes was",
        ),
        (lambda o: o.update(scheduler=lr_scheduler.StepLR(o["optimizer"], 3)), "class was CosineAnnealingLR and is"),
    ],
)
def test_a_checkpoint_that_does_not_fit_says_what_and_changes_nothing(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], words: str
) -> None:
    def make(seed: int) -> dict[str, Any]:
        net = model()
        optimizer = torch.optim.AdamW(net.parameters())
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, 10)
        train(net, optimizer, scheduler, seed)
        return {"model": net, "optimizer": optimizer, "scheduler": scheduler}

    checkpoint = save(tmp_path, make(5))
    objects = make(2)
    change(objects)
    live = TrainingState(objects)
    before = {name: torch.load(_dumped(each)) for name, each in objects.items()}
    numbers = torch.get_rng_state()
    with pytest.raises(StateUnsupported, match=words) as raised:
        savers.load(checkpoint, live)
    assert raised.value.code == "state_differs"
    assert unchanged(objects, before)
    assert torch.equal(numbers, torch.get_rng_state())


def _dumped(each: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(each.state_dict(), file)
    file.seek(0)
    return file


def test_an_object_that_refuses_while_it_loads_leaves_the_others_as_they_were(tmp_path: Path) -> None:
    class Stubborn(Holder):
        """Takes half of what it gets."""

        def load_state_dict(self, state: Any) -> None:
            self.value = state
            if state == "saved":
                raise RuntimeError("I won't")

    saved_model = model()
    with torch.no_grad():
        saved_model[0].weight.zero_()
    checkpoint = save(tmp_path, {"model": saved_model, "a": Holder({"a": 1}), "b": Holder("saved")})
    objects = {"model": model(), "a": Holder({"a": 0}), "b": Stubborn("mine")}
    before = {"model": torch.load(_dumped(objects["model"])), "a": {"a": 0}, "b": "mine"}
    with pytest.raises(StateUnsupported, match="b does not take"):
        savers.load(checkpoint, TrainingState(objects))
    assert unchanged(objects, before)


def test_gradients_of_an_open_window_come_back_and_spent_ones_only_as_zeros(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    state = TrainingState({"model": net, "optimizer": optimizer})
    saver = Saver(CheckpointStore(tmp_path, "feed"), state, SYNCHRONOUS, attempt=1)
    net(torch.randn(4, 6)).sum().backward()
    wanted = [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None]
    state.begin_step()
    saver.save(1, None, {})
    other = model()
    fresh = TrainingState({"model": other, "optimizer": torch.optim.SGD(other.parameters(), lr=0.1)})
    assert Saver(CheckpointStore(tmp_path, "feed"), fresh, SYNCHRONOUS, attempt=2).restore() is None
    assert equal([parameter.grad for parameter in other.parameters()], wanted)

    optimizer.step()
    checkpoint = saver.save(2, None, {})
    assert checkpoint is not None
    sizes = checkpoint.manifest.files["rank-00000.safetensors"].size_bytes
    assert sizes < 12_000  # random numbers alone
    savers.load(checkpoint, fresh)
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in other.parameters())


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
