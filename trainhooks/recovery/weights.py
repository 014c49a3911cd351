"""Weights of a recovered run into a model: ours from verified safetensors, others' by safe loading alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from trainhooks.errors import CheckpointInvalid, TrainhooksError
from trainhooks.pytorch.checkpoint import loading, torch_file, wrapper
from trainhooks.pytorch.checkpoint import saved as saved_files
from trainhooks.recovery import adapter, sharded
from trainhooks.recovery.found import SavedModel
from trainhooks.storage import verification

_INSIDE = ("model_state_dict", "model", "state_dict", "module", "net", "weights")
_FILES = (
    "model.safetensors",
    "pytorch_model.bin",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model_fsdp.bin",
    "adapter_model.safetensors",
    "adapter_model.bin",
    "model.pt",
    "model.pth",
    "pytorch_model.pt",
    "consolidated.safetensors",
    "consolidated.00.pth",
)
"""What the usual libraries call a whole model, or an adapter; `NAME.index.json` has one in several files."""


def load(model: nn.Module, candidates: Sequence[SavedModel]) -> nn.Module:
    """Load the first intact candidate.

    Raises:
        TrainhooksError: no candidate is intact, or its weights do not fit the model.
    """
    refused = []
    for saved in candidates:
        try:
            weights = read(saved)
        except TrainhooksError as error:
            refused.append(f"{error.message} ({error.hint})")
            continue
        _put(model, weights, saved.path)
        return model
    raise TrainhooksError(
        "No checkpoint of this run has readable weights. " + " ".join(refused),
        hint="`recover()` lists the run's checkpoints in `.checkpoints`.",
        code="weights_missing",
    )


def read(saved: SavedModel) -> Mapping[str, Tensor]:
    """Read a checkpoint's weights.

    Raises:
        TrainhooksError: damaged, or without weights.
    """
    if saved.is_ours:
        verification.verify(saved.path)
    if saved.is_ours and (saved.path / saved_files.STATE).is_file():
        return _ours(saved.path)
    if saved.path.is_dir():
        for file in (saved.path / name for name in _FILES):
            if file.is_file():
                return _file(file)
            if (index := file.with_name(f"{file.name}.index.json")).is_file():
                return _parts(index)
        if (found := sharded.read(saved.path)) is not None:
            return found
        raise CheckpointInvalid(
            f"{saved.path.name} has no weights of a model.", hint="Name the model `model` in state=."
        )
    return _file(saved.path)


def _ours(path: Path) -> Mapping[str, Tensor]:
    """Read the model of a checkpoint of ours, including one sharded over ranks."""
    described = saved_files.read_json(path, saved_files.STATE)["objects"].get("model")
    if described is None:
        raise CheckpointInvalid(f"{path.name} has no weights of a model.", hint="Name the model `model` in state=.")
    found = loading.read(path, "model", described)
    return {**found, **{alias: found[name] for alias, name in described.get("aliases", {}).items()}}


def _parts(index: Path) -> Mapping[str, Tensor]:
    """Read a model that is spread over several files; the index may only name files in its folder."""
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
        found: dict[str, Tensor] = {}
        for name in sorted(names):
            if Path(name).name != name:
                raise ValueError(f"it names {name}, which is not in its folder")
            found |= _file(index.with_name(name))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, TrainhooksError) as error:
        raise CheckpointInvalid(
            f"{index.parent.name} lacks a part of its weights ({error}).", hint="Copy all files of the checkpoint."
        ) from error
    return found


def _file(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        return load_file(path)
    members = torch_file.read(path)
    for name in _INSIDE:
        inside = members.get(name) if isinstance(members, Mapping) else None
        if isinstance(inside, Mapping) and inside and all(isinstance(value, Tensor) for value in inside.values()):
            return inside
    if isinstance(members, Mapping) and members and all(isinstance(value, Tensor) for value in members.values()):
        return members
    raise CheckpointInvalid(
        f"{path.name} has no weights under a usual name.",
        hint=f"Looked for {', '.join(_INSIDE)} and a bare state_dict.",
    )


def _put(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    own = wrapper.plain(model, model.state_dict())
    if adapter.is_adapter(weights) and not own.keys() <= weights.keys():
        adapter.put(model, weights, path)
        return
    found = _under_a_prefix(weights, own)
    if not own.keys() <= found.keys():
        found = _under_a_prefix(wrapper.fitted(model, weights, own), own)
    for group in _tied(model, own):  # a file keeps one name of shared weights
        known = next((found[name] for name in group if name in found), None)
        if known is not None:
            found.update({name: known for name in group if name not in found})
    problems = [f"{name} is missing" for name in own.keys() - found.keys()]
    problems += [
        f"{name} has shape {tuple(found[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in found and found[name].shape != value.shape
    ]
    if problems:
        raise TrainhooksError(
            f"The weights in {path} do not fit this model: {'; '.join(sorted(problems)[:5])}.",
            hint="Build the model with the run's own settings: `recover().training_config`.",
            code="weights_do_not_fit",
        )
    live = wrapper.live_names(model, model.state_dict())
    model.load_state_dict({live[name]: found[name] for name in own})


def _under_a_prefix(found: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights without the one prefix that all of them have, such as the attribute of a trainer's module."""
    if own.keys() <= found.keys():
        return dict(found)
    parts = [name.split(".") for name in found]
    prefixes = {".".join(part[:depth]) + "." for part in parts for depth in (1, 2, 3) if len(part) > depth}
    fitting = [prefix for prefix in sorted(prefixes) if all(prefix + name in found for name in own)]
    if len(fitting) != 1:
        return dict(found)
    return {name.removeprefix(fitting[0]): value for name, value in found.items() if name.startswith(fitting[0])}


def _tied(model: nn.Module, own: Mapping[str, Tensor]) -> list[list[str]]:
    """Return the names that share one tensor in the live model, such as an embedding and the head tied to it."""
    groups: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for name, value in own.items():
        if value.numel():
            groups.setdefault((value.data_ptr(), tuple(value.shape)), []).append(name)
    return [names for names in groups.values() if len(names) > 1]
