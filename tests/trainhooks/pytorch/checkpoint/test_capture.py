"""Every kind of value comes back to the bit, or is refused by name before the training begins."""

import io
import math
import random
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.trainhooks.pytorch.objects import Holder, equal, save
from trainhooks.errors import StateUnsupported
from trainhooks.pytorch.checkpoint import saver as savers
from trainhooks.pytorch.checkpoint.state import TrainingState


def round_trip(root: Path, value: Any) -> Any:
    return savers.load(save(root, {}, value), TrainingState({}))


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
