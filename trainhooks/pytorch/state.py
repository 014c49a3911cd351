"""What a training is made of, taken and put back: named objects with `state_dict` and `load_state_dict`."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from trainhooks.errors import StateUnsupported
from trainhooks.pytorch import rng, tree


class Capture:
    """The state of a training at one moment: JSON trees by name, and the tensors in them, by reference."""

    def __init__(self) -> None:
        self.trees: dict[str, Any] = {}
        self.tensors: dict[str, dict[str, Tensor]] = {}
        """By file, then by the tensor's path in it."""

    def add(self, file: str, value: Any) -> None:
        """Take a value; its tensors go to `file`, shared ones once."""
        named: dict[str, Tensor] = {}
        numbers: dict[tuple[Any, ...], int] = {}

        def put(path: str, tensor: Tensor) -> int:
            identity = (
                tensor.untyped_storage().data_ptr(),
                tensor.storage_offset(),
                tuple(tensor.shape),
                tensor.stride(),
                tensor.dtype,
                tensor.device,
            )
            if tensor.numel() == 0 or identity not in numbers:
                numbers[identity] = len(named)
                named[path or "value"] = tensor.detach()
            return numbers[identity]

        text = tree.encode(value, put)
        self.trees[file] = {"tree": text, "tensors": list(named)}
        self.tensors[file] = named


class TrainingState:
    """The objects of one training.

    Args:
        objects: by name: modules, optimizers, schedulers, a GradScaler, anything with `state_dict` and
            `load_state_dict`. Names become file names.
    """

    def __init__(self, objects: Mapping[str, Any]) -> None:
        problems = [
            name
            for name, each in objects.items()
            if not (hasattr(each, "state_dict") and hasattr(each, "load_state_dict"))
        ]
        if problems:
            raise StateUnsupported(
                f"{', '.join(problems)} in state= cannot be saved and restored.",
                hint="Give objects with state_dict() and load_state_dict(), such as a model, optimizer or scheduler.",
            )
        self.objects = dict(objects)
        self._stepped: set[int] = set()
        for each in self.objects.values():
            if isinstance(each, torch.optim.Optimizer):
                each.register_step_post_hook(self._note_step)

    def _note_step(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        self._stepped.add(id(optimizer))

    def begin_step(self) -> None:
        """Forget which optimizers have stepped: a new step begins."""
        self._stepped.clear()

    def capture(self) -> Capture:
        """Take everything by reference: what is not copied before the next step changes under the caller's hands."""
        taken = Capture()
        for name, each in self.objects.items():
            taken.add(name, each.state_dict())
        return taken

    def capture_rank(self) -> dict[str, Any]:
        """Return what every rank has for itself: random numbers and the gradients of an open accumulation window."""
        return {"rng": rng.capture(), "gradients": self._gradients()}

    def restore_rank(self, state: Mapping[str, Any]) -> None:
        """Put back what `capture_rank` took."""
        self._restore_gradients(state["gradients"])
        rng.restore(state["rng"])

    def _parameters(self) -> Iterable[tuple[str, Tensor]]:
        for name, each in self.objects.items():
            if isinstance(each, torch.nn.Module):
                for path, parameter in each.named_parameters():
                    yield f"{name}.{path}", parameter

    def _gradients(self) -> dict[str, Tensor | bool]:
        """Gradients still to be used. Those of an optimizer that has just stepped are spent: of them only that they
        exist counts, since None and zero are not the same to an optimizer."""
        spent = {
            id(parameter)
            for each in self.objects.values()
            if isinstance(each, torch.optim.Optimizer) and id(each) in self._stepped
            for group in each.param_groups
            for parameter in group["params"]
        }
        return {
            path: True if id(parameter) in spent else parameter.grad
            for path, parameter in self._parameters()
            if parameter.grad is not None
        }

    def _restore_gradients(self, gradients: Mapping[str, Tensor | bool]) -> None:
        for path, parameter in self._parameters():
            saved = gradients.get(path)
            if saved is None:
                parameter.grad = None
            elif isinstance(saved, Tensor):
                parameter.grad = saved.to(parameter.device, parameter.dtype)
            else:
                parameter.grad = torch.zeros_like(parameter)
