"""Weights that others wrote, in every layout and under every wrapper's names, into the model that is there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from trainhooks.errors import TrainhooksError
from trainhooks.recovery import weights
from trainhooks.recovery.found import SavedModel

# What torch.compile imports is deprecated by torch itself.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.body = nn.Linear(3, 3)
        self.lm_head = nn.Linear(3, 5, bias=False)
        self.lm_head.weight = self.embedding.weight


class Wrapped(nn.Module):
    """A real submodule that is called as DDP's is."""

    def __init__(self) -> None:
        super().__init__()
        self.module = nn.Linear(2, 2)
        self.head = nn.Linear(2, 1)


def compiled_parts(model: nn.Sequential) -> nn.Sequential:
    for at, layer in enumerate(model):
        model[at] = torch.compile(layer)  # type: ignore[assignment]
    return model


def body() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))


def load(model: nn.Module, path: Path) -> nn.Module:
    return weights.load(model, [SavedModel(path=path)])


def assert_same(one: nn.Module, other: nn.Module) -> None:
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) for mine, theirs in pairs)


LAYOUTS: dict[str, Callable[[Path, dict[str, Any]], None]] = {
    "model.safetensors": lambda path, state: save_file(state, path / "model.safetensors"),
    "pytorch_model.bin": lambda path, state: torch.save(state, path / "pytorch_model.bin"),
    "diffusers": lambda path, state: save_file(state, path / "diffusion_pytorch_model.safetensors"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_tied_head_that_the_writer_left_out_is_the_embedding(tmp_path: Path, layout: str) -> None:
    saved = Tied()
    state = {name: value for name, value in saved.state_dict().items() if name != "lm_head.weight"}
    LAYOUTS[layout](tmp_path, state)
    model = load(Tied(), tmp_path)
    assert isinstance(model, Tied)
    assert_same(model, saved)
    assert model.lm_head.weight is model.embedding.weight


def test_an_untied_head_that_is_missing_is_reported(tmp_path: Path) -> None:
    save_file(
        {name: value for name, value in body().state_dict().items() if name != "1.bias"}, tmp_path / "model.safetensors"
    )
    with pytest.raises(TrainhooksError, match=r"1\.bias is missing"):
        load(body(), tmp_path)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_model_in_several_files(tmp_path: Path, kind: str) -> None:
    saved = body()
    files = {"0": f"model-00001-of-00002.{kind}", "1": f"model-00002-of-00002.{kind}"}
    for part, file in files.items():
        state = {name: value for name, value in saved.state_dict().items() if name.startswith(part)}
        save_file(state, tmp_path / file) if kind == "safetensors" else torch.save(state, tmp_path / file)
    index = {"weight_map": {name: files[name[0]] for name in saved.state_dict()}}
    whole = "model.safetensors" if kind == "safetensors" else "pytorch_model.bin"
    (tmp_path / f"{whole}.index.json").write_text(json.dumps(index))
    assert_same(load(body(), tmp_path), saved)
    (tmp_path / files["1"]).unlink()
    with pytest.raises(TrainhooksError, match="lacks a part"):
        load(body(), tmp_path)


def test_an_index_does_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    save_file(body().state_dict(), tmp_path / "other.safetensors")
    index = {"weight_map": dict.fromkeys(body().state_dict(), "../other.safetensors")}
    (tmp_path / "run" / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(TrainhooksError, match="not in its folder"):
        load(body(), tmp_path / "run")


@pytest.mark.parametrize("is_compiled", [False, True], ids=["into plain", "into compiled"])
@pytest.mark.parametrize(
    "rename",
    [
        lambda name: name,
        lambda name: f"module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"model.{name}",
        lambda name: f"student.net.{name}",
        lambda name: name.replace(".", "._orig_mod.", 1),
        lambda name: name.replace(".", "._fsdp_wrapped_module._checkpoint_wrapped_module.", 1),
        lambda name: "module." + name.replace(".", "._orig_mod.", 1),
    ],
)
def test_names_of_wrappers_wherever_they_stand(tmp_path: Path, rename: Callable[[str], str], is_compiled: bool) -> None:
    saved = body()
    torch.save({"state_dict": {rename(name): value for name, value in saved.state_dict().items()}}, tmp_path / "a.pt")
    assert_same(load(compiled_parts(body()) if is_compiled else body(), tmp_path / "a.pt"), saved)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
def test_a_submodule_that_is_called_module_is_one(tmp_path: Path, prefix: str) -> None:
    saved = Wrapped()
    torch.save({prefix + name: value for name, value in saved.state_dict().items()}, tmp_path / "a.pt")
    assert_same(load(Wrapped(), tmp_path / "a.pt"), saved)


class Lora(nn.Module):
    """A layer as PEFT builds it."""

    def __init__(self) -> None:
        super().__init__()
        self.base_layer = nn.Linear(4, 4)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(4, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 4, bias=False)})


def adapter_of(model: Lora) -> dict[str, torch.Tensor]:
    return {
        "layer.lora_A.weight": model.lora_A["default"].weight.detach().clone(),
        "layer.lora_B.weight": model.lora_B["default"].weight.detach().clone(),
    }


def test_an_adapter_goes_into_a_model_that_has_it(tmp_path: Path) -> None:
    saved = Lora()
    save_file(adapter_of(saved), tmp_path / "adapter_model.safetensors")
    model = nn.Module()
    model.layer = Lora()
    base = model.layer.base_layer.weight.detach().clone()
    load(model, tmp_path)
    assert torch.equal(model.layer.lora_A["default"].weight, saved.lora_A["default"].weight)
    assert torch.equal(model.layer.lora_B["default"].weight, saved.lora_B["default"].weight)
    assert torch.equal(model.layer.base_layer.weight, base)


def test_a_model_without_the_adapter_is_shown_what_to_build(tmp_path: Path) -> None:
    save_file(adapter_of(Lora()), tmp_path / "adapter_model.safetensors")
    with pytest.raises(TrainhooksError, match="holds only an adapter") as refused:
        load(body(), tmp_path)
    assert "get_peft_model" in refused.value.hint
