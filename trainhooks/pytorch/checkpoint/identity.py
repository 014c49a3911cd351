"""What identifies an object of a training beside its state, and how differences are worded."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainhooks.pytorch.checkpoint import flags, wrapper


def walked_modules(objects: Mapping[str, Any]) -> dict[str, wrapper.Walked]:
    """Return what was found in each module, by object."""
    return {name: wrapper.Walked(each) for name, each in objects.items() if isinstance(each, torch.nn.Module)}


def kind_of(each: Any, walked: wrapper.Walked | None, names: Mapping[int, str]) -> dict[str, Any]:
    """Optimizers know their parameters by index alone: names and shapes show whether these are the same ones."""
    if isinstance(each, Optimizer):
        shapes = [[list(parameter.shape) for parameter in group["params"]] for group in each.param_groups]
        return {
            "class": type(each).__qualname__,
            "parameter shapes": shapes,
            "groups": flags.groups_of(each, names),
        }
    if walked is not None:
        return flags.of_module(walked)
    return {"class": type(each).__qualname__} if isinstance(each, LRScheduler) else {}


def differing_names(what: str, saved: Any, live: Any) -> list[str]:
    """Return a sentence for names that only one side has."""
    groups = (("the checkpoint lacks", sorted(live - saved)), ("this training lacks", sorted(saved - live)))
    return [
        f"{lacks} the {what}{'s' if len(names) > 1 else ''} {shortened(', '.join(names))}"
        for lacks, names in groups
        if names
    ]


def spelled(value: Any) -> str:
    """Return dtype and shape of a tensor, else the type."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__


def shortened(value: Any) -> str:
    """Return a text of at most 303 characters."""
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."
