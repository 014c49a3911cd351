"""What a training is made of, taken and put back: named objects with `state_dict` and `load_state_dict`."""

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainhooks.errors import StateUnsupported
from trainhooks.pytorch import rng
from trainhooks.pytorch.capture import Part, capture, rebuild

RANK_FILE = "rank-{:05d}"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_RESERVED = re.compile(r"rank-\d+|state|manifest|sharded", re.IGNORECASE)


class TrainingState:
    """The objects of one training.

    Args:
        objects: by name: modules, optimizers, schedulers, a GradScaler, anything with `state_dict` and
            `load_state_dict`. Names become file names. What DistributedDataParallel or torch.compile wraps is saved
            without the wrapping.

    Raises:
        StateUnsupported: a name or an object cannot be used, or what it holds now cannot be saved.
    """

    def __init__(self, objects: Mapping[str, Any]) -> None:
        _check_names(objects)
        self.objects = {name: _unwrapped(each) for name, each in objects.items()}
        problems = [
            name
            for name, each in self.objects.items()
            if not (hasattr(each, "state_dict") and hasattr(each, "load_state_dict"))
        ]
        if problems:
            raise StateUnsupported(
                f"{', '.join(problems)} in state= cannot be saved and restored.",
                hint="Give objects with state_dict() and load_state_dict(), such as a model, optimizer or scheduler.",
            )
        self._stepped: set[int] = set()
        self._random: dict[str, Any] | None = None
        for each in self.objects.values():
            if isinstance(each, Optimizer):
                each.register_step_post_hook(self._note_step)
        self.capture()  # what can never be saved is told now and not at the first checkpoint

    def _note_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._stepped.add(id(optimizer))

    def begin_step(self) -> None:
        """Forget which optimizers have stepped: a new step begins."""
        self._stepped.clear()

    def capture(self) -> dict[str, Part]:
        """Take every object's state, tensors by reference: what is not copied before the next step changes."""
        return {name: capture(each.state_dict(), of=name) for name, each in self.objects.items()}

    def capture_rank(self, progress: Any) -> Part:
        """Take what every rank has for itself: `progress`, random numbers, gradients of an open accumulation window."""
        return capture({"progress": progress, "rng": rng.capture(), "gradients": self._gradients()}, of="the session")

    def kinds(self) -> dict[str, dict[str, Any]]:
        """Return what tells, beside its state, whether an object is the one that was saved. JSON."""
        return {name: _kind(each) for name, each in self.objects.items()}

    def restore(
        self,
        described: Mapping[str, Any],
        kinds: Mapping[str, Any],
        tensors: Mapping[str, Mapping[str, Tensor]],
    ) -> None:
        """Put every object back to what `capture` took, on the devices where its tensors are now.

        Everything is compared first: a checkpoint that does not fit leaves the objects as they were.

        Args:
            described: `Part.describe()` of each object.
            kinds: from `kinds()` of then.
            tensors: of each object, by name; the objects may keep them.

        Raises:
            StateUnsupported: naming all that does not fit.
        """
        now = self.capture()
        problems = _differing_names("object", described.keys(), self.objects.keys())
        values: dict[str, Any] = {}
        for name in self.objects.keys() & described.keys():
            values[name] = rebuild(described[name], _beside(now[name].paths, tensors[name]))
            problems += [f"{name}: {problem}" for problem in self._misfits(name, kinds[name], values[name])]
        if problems:
            raise StateUnsupported(
                "The checkpoint does not fit this training: " + "; ".join(problems) + ".",
                hint="Resume with the model, optimizer and scheduler of the run, or start a new one elsewhere.",
                code="state_differs",
            )
        self._load(values, now)

    def restore_rank(self, value: Mapping[str, Any]) -> None:
        """Put back gradients, then random numbers."""
        self._restore_gradients(value["gradients"])
        self._random = dict(value["rng"])
        rng.restore(self._random)

    def restore_random(self) -> None:
        """Put the restored random numbers back once more: what was set up since then may have drawn some."""
        if self._random is not None:
            rng.restore(self._random)
            self._random = None

    def _misfits(self, name: str, kind: Mapping[str, Any], value: Any) -> list[str]:
        each = self.objects[name]
        own = _kind(each)
        if not isinstance(each, torch.nn.Module):
            return [
                f"{what} was {_short(kind.get(what))} and is {_short(own.get(what))}"
                for what in sorted(kind.keys() | own.keys())
                if kind.get(what) != own.get(what)
            ]
        live = each.state_dict()
        return _differing_names("key", value.keys(), live.keys()) + [
            f"{key} was {_spell(value[key])} and is {_spell(live[key])}"
            for key in live.keys() & value.keys()
            if _spell(value[key]) != _spell(live[key])
        ]

    def _load(self, values: Mapping[str, Any], now: Mapping[str, Part]) -> None:
        """Load modules last: they are known to fit. Others may still refuse; those before are put back then."""
        order = sorted(self.objects, key=lambda name: isinstance(self.objects[name], torch.nn.Module))
        before = {name: _copied(now[name]) for name in order if not isinstance(self.objects[name], torch.nn.Module)}
        for at, name in enumerate(order):
            try:
                self.objects[name].load_state_dict(values[name])
            except Exception as error:
                for earlier in before.keys() & set(order[: at + 1]):
                    with suppress(Exception):  # what refuses once may refuse again; the first reason is the one to tell
                        self.objects[earlier].load_state_dict(before[earlier])
                raise StateUnsupported(
                    f"{name} does not take what was saved of it ({type(error).__name__}: {error}).",
                    hint="Resume with the objects of the run, or start a new one elsewhere.",
                    code="state_differs",
                ) from error

    def _parameters(self) -> Iterator[tuple[str, Tensor]]:
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
            if isinstance(each, Optimizer) and id(each) in self._stepped
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


def _check_names(objects: Mapping[str, Any]) -> None:
    folded = [name.lower() for name in objects]
    problems = [
        name
        for name in objects
        if not _FILE_NAME.fullmatch(name) or _RESERVED.fullmatch(name) or folded.count(name.lower()) > 1
    ]
    if problems:
        raise StateUnsupported(
            f"state= has names that cannot be file names here: {', '.join(map(repr, problems))}.",
            hint="Use letters, digits, '_', '-' and '.', each name once, and none of state, manifest, sharded, rank-N.",
        )


def _unwrapped(each: Any) -> Any:
    while True:
        if isinstance(each, DistributedDataParallel):
            each = each.module
        elif isinstance(each, torch.nn.Module) and hasattr(each, "_orig_mod"):
            each = each._orig_mod
        else:
            return each


def _kind(each: Any) -> dict[str, Any]:
    """Optimizers know their parameters by place alone: the shapes tell whether these are the same ones."""
    if isinstance(each, Optimizer):
        shapes = [[list(parameter.shape) for parameter in group["params"]] for group in each.param_groups]
        return {"class": type(each).__qualname__, "parameter shapes": shapes}
    return {"class": type(each).__qualname__} if isinstance(each, LRScheduler) else {}


def _differing_names(what: str, saved: Any, live: Any) -> list[str]:
    groups = (("the checkpoint lacks", sorted(live - saved)), ("this training lacks", sorted(saved - live)))
    return [
        f"{lacks} the {what}{'s' if len(names) > 1 else ''} {_short(', '.join(names))}"
        for lacks, names in groups
        if names
    ]


def _spell(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    return type(value).__name__


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}..."


def _beside(live: Mapping[str, Tensor], saved: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring each saved tensor to the device where the live one of its name is; others stay on the CPU."""
    return {name: tensor.to(live[name].device) if name in live else tensor for name, tensor in saved.items()}


def _copied(part: Part) -> Any:
    copies = {name: tensor.clone() for name, tensor in part.tensors.items()}
    return rebuild(part.describe(), copies)
