"""What a training computes with: the shape of its models, and what decides whether a GPU computes the same again."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch

from trainhooks.pytorch.checkpoint.wrapper import named_parameters

Fact = str | int | bool


def models(objects: Mapping[str, Any]) -> dict[str, Fact]:
    """Say of each module how many parameters it has and which ones, by plain name, shape and dtype."""
    facts: dict[str, Fact] = {}
    for name, each in objects.items():
        if isinstance(each, torch.nn.Module):
            parameters = [(path, list(value.shape), str(value.dtype)) for path, value in named_parameters(each)]
            facts[f"model.{name}.parameters"] = sum(value.numel() for value in each.parameters())
            facts[f"model.{name}.shapes_sha256"] = hashlib.sha256(repr(parameters).encode()).hexdigest()
    return facts


def environment() -> dict[str, Fact]:
    """Say which torch, CUDA, cuDNN and GPU this is, and how deterministic it was asked to be."""
    facts: dict[str, Fact] = {
        "environment.torch": torch.__version__,
        "environment.deterministic": torch.are_deterministic_algorithms_enabled(),
        "environment.cudnn_deterministic": torch.backends.cudnn.deterministic,
        "environment.cudnn_benchmark": torch.backends.cudnn.benchmark,
        "environment.matmul_precision": torch.get_float32_matmul_precision(),
    }
    if torch.cuda.is_available():
        facts["environment.cuda"] = torch.version.cuda or ""
        facts["environment.cudnn"] = torch.backends.cudnn.version() or 0  # type: ignore[no-untyped-call]
        facts["environment.gpu"] = torch.cuda.get_device_name()
    return facts
