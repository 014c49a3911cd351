"""What a training is made of, taken and put back: named objects with `state_dict` and `load_state_dict`."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trainhooks.core.restore import Restore
from trainhooks.errors import StateUnsupported
from trainhooks.pytorch import rng
from trainhooks.pytorch.checkpoint import (
    flags,
    gradients,
    hyperparameters,
    identity,
    module_state,
    plain_state,
    sharding,
    wrapper,
)
from trainhooks.pytorch.checkpoint.capture import Part, capture, rebuild
from trainhooks.pytorch.checkpoint.gradient_habit import GradientHabit
from trainhooks.pytorch.checkpoint.gradients import Gradient
from trainhooks.pytorch.checkpoint.plan import Planned

log = logging.getLogger("trainhooks")

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_RESERVED = re.compile(r"rank-\d+|state|manifest|sharded|gradients", re.IGNORECASE)
_BUILT = "built_lr"
"""Of an optimizer's kind: its learning rates as the script had built it. They may differ."""
_LOADED = (Optimizer, object, torch.nn.Module)
"""The order in which objects are loaded."""
_OF_PARAMETER = re.compile(r"state\.(\d+)\..+")
"""The name of a tensor that an optimizer has for its n-th parameter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What one save takes of a training."""

    parts: dict[str, Part]
    """By object."""
    gradients: Part | None
    """Of an open window, of parameters that are dealt out over the ranks; None where no parameter is."""
    own: Part
    """What every rank has for itself: progress, random numbers, gradients of an open accumulation window."""
    kinds: dict[str, dict[str, Any]]
    """What identifies an object beside its state, by name. JSON."""


class TrainingState:
    """The objects of one training.

    Args:
        objects: by name: modules, optimizers, schedulers, a GradScaler, anything with `state_dict` and
            `load_state_dict`, or with plain attributes alone, and generators. Names become file names. What
            DistributedDataParallel or torch.compile wraps is saved without the wrapping.

    Raises:
        StateUnsupported: a name or an object cannot be used, or what it holds now cannot be saved.
    """

    def __init__(self, objects: Mapping[str, Any]) -> None:
        _check_names(objects)
        self.objects = {name: plain_state.adapted(name, module_state.unwrapped(each)) for name, each in objects.items()}
        self._wrapped = {name for name, each in objects.items() if isinstance(each, DistributedDataParallel)}
        self.keeps_live_flags = False
        """Whether `requires_grad` and train/eval modes stay as the script has set them."""
        self.modes: Mapping[str, Restore] = {}
        """Whose settings hold at `restore`; of what is not named, the saved ones."""
        self.keeps_gradients = False
        """Whether every gradient's values are saved, whatever the loop has shown."""
        self._built = hyperparameters.built_rates(self.objects)
        """Learning rates of each optimizer as the script has built it."""
        self._planned = {name: Planned() for name in self.objects}
        self._planned_own = Planned()
        """Of what every rank has for itself."""
        self._habits = [GradientHabit(each) for each in self.objects.values() if isinstance(each, Optimizer)]
        self._stepped: set[int] = set()
        self._random: dict[str, Any] | None = None
        for each in self.objects.values():
            if isinstance(each, Optimizer):
                each.register_step_post_hook(self._note_step)
        self.capture()  # what can never be saved fails now and not at the first checkpoint

    def _note_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self.saw_step(optimizer)

    def saw_step(self, optimizer: Optimizer) -> None:
        """Note that an optimizer has stepped, one of the training's or another."""
        self._stepped.add(id(optimizer))

    @property
    def has_stepped(self) -> bool:
        """Whether an optimizer has stepped since the running step began."""
        return bool(self._stepped)

    def begin_step(self) -> None:
        """Forget which optimizers have stepped: a new step begins."""
        self._stepped.clear()

    def capture(self) -> dict[str, Part]:
        """Take every object's state, tensors by reference: what is not copied before the next step changes."""
        return {name: capture(module_state.state_of(each), of=name) for name, each in self.objects.items()}

    def take(self, progress: Any) -> Taken:
        """Take all that a checkpoint holds, tensors by reference: what is not copied before the next step changes.

        Args:
            progress: what the caller wants back; kept for this rank.
        """
        walked = identity.walked_modules(self.objects)
        parts = {
            name: self._planned[name].capture(module_state.state_of(each, walked.get(name)), of=name)
            for name, each in self.objects.items()
        }
        parameters = [
            (f"{name}.{path}", parameter) for name, each in walked.items() for path, parameter in each.parameters
        ]
        own = {
            "progress": progress,
            "rng": rng.capture(),
            "gradients": gradients.taken(parameters, self._is_spent, dealt=False),
        }
        dealt = None
        if sharding.are_any_sharded(parameter for _, parameter in parameters):
            dealt = capture(gradients.taken(parameters, self._is_spent, dealt=True), of="the gradients")
        return Taken(
            parts=parts,
            gradients=dealt,
            own=self._planned_own.capture(own, of="the session"),
            kinds=self._kinds(walked, parameters),
        )

    def _kinds(
        self, walked: Mapping[str, wrapper.Walked], parameters: Sequence[tuple[str, Tensor]]
    ) -> dict[str, dict[str, Any]]:
        """Return what identifies an object beside its state, by name. JSON."""
        names = flags.names_of(parameters)
        kinds = {name: identity.kind_of(each, walked.get(name), names) for name, each in self.objects.items()}
        for name, rates in self._built.items():
            kinds[name][_BUILT] = rates
        return kinds

    def restore(
        self,
        described: Mapping[str, Any],
        kinds: Mapping[str, Any],
        read: Callable[[str, Callable[[str, Sequence[int]], Tensor | None]], Mapping[str, Tensor]],
    ) -> None:
        """Put every object back to what `capture` took, where its tensors are now and dealt out as they are now.

        Everything is compared first: a checkpoint that does not fit leaves the objects as they were.

        Args:
            described: `Part.describe()` of each object.
            kinds: from `kinds()` of then.
            read: gives an object's tensors by name, each as the second argument's live tensor of its name and shape
                is, where there is one; the objects may keep them.

        Raises:
            StateUnsupported: naming all that does not fit.
        """
        undo = self._add_groups(kinds)
        try:
            self._restore(described, kinds, read)
        except BaseException:
            for optimizer, count in undo:
                del optimizer.param_groups[count:]
            raise

    def _add_groups(self, kinds: Mapping[str, Any]) -> list[tuple[Optimizer, int]]:
        """Add the parameter groups that a running training had added; returns how many each optimizer had."""
        had = []
        for name, each in self.objects.items():
            if isinstance(each, Optimizer) and "groups" in kinds.get(name, {}):
                count = len(each.param_groups)
                for parameters in flags.missing_groups(each, kinds[name]["groups"], self.objects):
                    each.add_param_group({"params": parameters})
                if len(each.param_groups) > count:
                    had.append((each, count))
        return had

    def _restore(
        self,
        described: Mapping[str, Any],
        kinds: Mapping[str, Any],
        read: Callable[[str, Callable[[str, Sequence[int]], Tensor | None]], Mapping[str, Tensor]],
    ) -> None:
        now = self.capture()
        problems = identity.differing_names("object", described.keys(), self.objects.keys())
        values: dict[str, Any] = {}
        for name in self.objects.keys() & described.keys():
            values[name] = rebuild(described[name], read(name, self.target(name, now[name])))
            if isinstance(each := self.objects[name], torch.nn.Module):
                values[name] = module_state.fitted(each, values[name])
            problems += [f"{name}: {problem}" for problem in self._misfits(name, kinds[name], values[name])]
        if problems:
            raise StateUnsupported(
                "The checkpoint does not fit this training: " + "; ".join(problems) + ".",
                hint="Resume with the model, optimizer and scheduler of the run, or start a new one elsewhere.",
                code="state_differs",
            )
        self._load(values, now, kinds)
        for name in self._built:
            if self.modes.get(name) is not Restore.STATE_ONLY:
                self._built[name] = kinds[name].get(_BUILT, self._built[name])
        if self.keeps_live_flags:
            return
        for name, each in self.objects.items():
            if isinstance(each, torch.nn.Module):
                for sentence in flags.put_module(each, kinds[name]):
                    log.warning("%s: %s", name, sentence)

    def restore_random(self, value: Mapping[str, Any]) -> None:
        """Put back a rank's random numbers, last of all."""
        self._random = dict(value)
        rng.restore(self._random)

    def restore_random_again(self) -> None:
        """Put the restored random numbers back once more: what was set up since then may have drawn some."""
        if self._random is not None:
            rng.restore(self._random)
            self._random = None

    def _misfits(self, name: str, kind: Mapping[str, Any], value: Any) -> list[str]:
        each = self.objects[name]
        walked = identity.walked_modules(self.objects)
        own = identity.kind_of(each, walked.get(name), flags.names_of(self.parameters()))
        if not isinstance(each, torch.nn.Module):
            return [
                f"{what} was {identity.shortened(kind.get(what))} and is {identity.shortened(own.get(what))}"
                for what in sorted(kind.keys() & own.keys() if "groups" in own else kind.keys() | own.keys())
                if kind.get(what) != own.get(what)
            ]
        if name in self._wrapped and not self.keeps_live_flags and (late := flags.misfits(each, kind)):
            return [
                f"requires_grad of {late[0]} differs, and the model is wrapped already: set it before (peek() shows it)"
            ]
        live = module_state.state_of(each)
        return identity.differing_names("key", value.keys(), live.keys()) + [
            f"{key} was {identity.spelled(value[key])} and is {identity.spelled(live[key])}"
            for key in live.keys() & value.keys()
            if identity.spelled(value[key]) != identity.spelled(live[key])
        ]

    def _load(self, values: Mapping[str, Any], now: Mapping[str, Part], kinds: Mapping[str, Any]) -> None:
        """Load modules last: they are known to fit. Others may still refuse; those before are put back then.

        Optimizers come before schedulers, which under `state-only` set their learning rates.
        """
        order = sorted(self.objects, key=lambda name: _LOADED.index(_load_class(self.objects[name])))
        before = {name: _copied(now[name]) for name in order if not isinstance(self.objects[name], torch.nn.Module)}
        for at, name in enumerate(order):
            try:
                self._load_one(name, values, kinds)
            except Exception as error:
                for earlier in before.keys() & set(order[: at + 1]):
                    with suppress(
                        Exception
                    ):  # what refuses once may refuse again; the first reason is the one to report
                        self.objects[earlier].load_state_dict(before[earlier])
                raise StateUnsupported(
                    f"{name} does not take what was saved of it ({type(error).__name__}: {error}).",
                    hint="Resume with the objects of the run, or start a new one elsewhere.",
                    code="state_differs",
                ) from error

    def _load_one(self, name: str, values: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
        each, value = self.objects[name], values[name]
        if isinstance(each, plain_state.PlainState):
            each.mode = self.modes.get(name, Restore.CHECKPOINT)
            each.load_state_dict(value)
        elif self.modes.get(name) is not Restore.STATE_ONLY:
            module_state.load_into(each, value)
        elif isinstance(each, ReduceLROnPlateau):
            owner = next((other for other, one in self.objects.items() if one is each.optimizer), None)
            hyperparameters.carry_over(
                each,
                value,
                rates=[] if owner is None else [group["lr"] for group in values[owner]["param_groups"]],
                built=None if owner is None else kinds[owner].get(_BUILT),
            )
        elif isinstance(each, Optimizer):
            each.load_state_dict(hyperparameters.with_live_settings(each, value))
        else:
            hyperparameters.advance(each, hyperparameters.steps_of(value))

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Return the parameters of all modules as (`OBJECT.NAME`, parameter)."""
        return wrapper.parameters_of(self.objects)

    def target(self, name: str, live: Part) -> Callable[[str, Sequence[int]], Tensor | None]:
        """Return a function that finds, for a saved tensor of an object, the live one whose device and layout it takes.

        An optimizer that has not stepped yet has no tensors: those that it will have lie as their parameters do.
        """
        each = self.objects[name]
        parameters = (
            [one for group in each.param_groups for one in group["params"]] if isinstance(each, Optimizer) else []
        )

        def target(tensor: str, shape: Sequence[int]) -> Tensor | None:
            of = _OF_PARAMETER.fullmatch(tensor)
            if tensor in live.paths or of is None or int(of[1]) >= len(parameters):
                return live.paths.get(tensor)
            parameter = parameters[int(of[1])]
            is_alike = sharding.is_sharded(parameter) and list(parameter.shape) == list(shape)
            return parameter.detach() if is_alike else None

        return target

    def gradient_target(self, path: str, shape: Sequence[int]) -> Tensor | None:
        """Return the parameter that a gradient is of."""
        return next((parameter.detach() for name, parameter in self.parameters() if name == path), None)

    def _is_spent(self, parameter: Tensor) -> bool:
        return not self.keeps_gradients and any(habit.is_spent(parameter) for habit in self._habits)

    def restore_gradients(self, saved: Mapping[str, Gradient]) -> None:
        """Put back gradients, of every parameter; those that are not given are none."""
        gradients.put_back(self.objects, saved)


def _load_class(each: Any) -> type:
    return next(kind for kind in (Optimizer, torch.nn.Module, object) if isinstance(each, kind))


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
            hint="Use letters, digits, '_', '-' and '.', each name once, "
            "and none of state, manifest, sharded, gradients, rank-N.",
        )


def _copied(part: Part) -> Any:
    copies = {name: part.sharded.get(name, tensor).clone() for name, tensor in part.tensors.items()}
    return rebuild(part.describe(), copies)
