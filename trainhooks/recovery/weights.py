"""Weights of a recovered run into a model: ours from verified safetensors, others' by safe loading alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from trainhooks.errors import CheckpointInvalid, TrainhooksError
from trainhooks.pytorch import loading, torch_file
from trainhooks.pytorch import saved as saved_files
from trainhooks.recovery.found import SavedModel
from trainhooks.storage import verification

_INSIDE = ("model_state_dict", "model", "state_dict", "module", "net", "weights")
_FILES = ("model.safetensors", "pytorch_model.bin")


def load(model: nn.Module, candidates: Sequence[SavedModel]) -> nn.Module:
    """Load the first candidate that is whole.

    Raises:
        TrainhooksError: there is none, or its weights do not fit the model.
    """
    refused = []
    for saved in candidates:
        try:
            weights = read(saved)
        except TrainhooksError as error:
            refused.append(error.message)
            continue
        _put(model, weights, saved.path)
        return model
    raise TrainhooksError(
        "No checkpoint of this run has weights that can be read. " + " ".join(refused),
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
        raise CheckpointInvalid(
            f"{saved.path.name} has no weights of a model.", hint="Name the model `model` in state=."
        )
    return _file(saved.path)


def _ours(path: Path) -> Mapping[str, Tensor]:
    """Read the model of a checkpoint of ours, also what was dealt out over ranks."""
    described = saved_files.read_json(path, saved_files.STATE)["objects"].get("model")
    if described is None:
        raise CheckpointInvalid(f"{path.name} has no weights of a model.", hint="Name the model `model` in state=.")
    found = loading.read(path, "model", described)
    return {**found, **{alias: found[name] for alias, name in described.get("aliases", {}).items()}}


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
        f"{path.name} holds no weights under a usual name.",
        hint=f"Looked for {', '.join(_INSIDE)} and a bare state_dict.",
    )


def _put(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    for prefix in ("", "module.", "_orig_mod.", "model."):
        stripped = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        if own.keys() <= stripped.keys():
            break
    else:
        stripped = dict(weights)
    problems = [f"{name} is missing" for name in own.keys() - stripped.keys()]
    problems += [
        f"{name} has shape {tuple(stripped[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in stripped and stripped[name].shape != value.shape
    ]
    if problems:
        raise TrainhooksError(
            f"The weights in {path} do not fit this model: {'; '.join(sorted(problems)[:5])}.",
            hint="Build the model with the run's own settings: `recover().training_config`.",
            code="weights_do_not_fit",
        )
    model.load_state_dict({name: stripped[name] for name in own})
