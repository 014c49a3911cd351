"""Weights of an adapter alone, as PEFT writes them: they load into a model that already has such an adapter."""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from trainhooks.errors import TrainhooksError
from trainhooks.pytorch.checkpoint import wrapper

_KINDS = (
    "lora_A",
    "lora_B",
    "lora_embedding_A",
    "lora_embedding_B",
    "lora_magnitude_vector",
    "ia3_l",
    "vera_lambda_b",
    "vera_lambda_d",
    "modules_to_save",
    "prompt_encoder",
    "prompt_embeddings",
    "adapter",
)
"""Parts of the names of an adapter's weights (PEFT 0.19, read 2026-11)."""
_PART = re.compile(rf"(^|\.)({'|'.join(_KINDS)})(\.|$)")
_ADAPTER_NAME = re.compile(rf"((?:^|\.)(?:{'|'.join(_KINDS)}))\.[^.]+(?=\.|$)")


def is_adapter(weights: Mapping[str, Tensor]) -> bool:
    """Whether all weights belong to an adapter."""
    return bool(weights) and all(_PART.search(name) for name in weights)


def put(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Load an adapter's weights. The names in a live model contain its name (`default`); the names in the file do not.

    Raises:
        TrainhooksError: the model has no such adapter.
    """
    state = model.state_dict()
    live = wrapper.live_names(model, state)
    by_file_name = {_ADAPTER_NAME.sub(r"\1", plain): name for plain, name in live.items()} | live
    problems = [f"{name} is missing" for name in weights if name not in by_file_name]
    problems += [
        f"{name} has shape {tuple(value.shape)} instead of {tuple(state[by_file_name[name]].shape)}"
        for name, value in weights.items()
        if name in by_file_name and state[by_file_name[name]].shape != value.shape
    ]
    if problems:
        raise TrainhooksError(
            f"{path} holds only an adapter, which this model does not have: {'; '.join(sorted(problems)[:5])}.",
            hint="Build the base model and its adapter first, as with peft.get_peft_model(base, config).",
            code="weights_do_not_fit",
        )
    model.load_state_dict({by_file_name[name]: value for name, value in weights.items()}, strict=False)
