"""What a training uses and nobody handed over: it would not be resumed, so it is said at the start."""

import logging
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.optim.optimizer import register_optimizer_step_post_hook

from trainhooks.pytorch.checkpoint.plain_state import GeneratorState, PlainState
from trainhooks.pytorch.data.held import GENERATORS

log = logging.getLogger("trainhooks")

_FRAMES = 12
"""How far above an optimizer's step the scaler is that calls it, with what schedulers and profilers wrap around it."""


def problems(objects: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each thing that the given objects use and that is in none of them."""
    owned = {
        id(each) for module in objects.values() if isinstance(module, torch.nn.Module) for each in _tensors(module)
    }
    owned |= {id(each) for each in objects.values() if isinstance(each, torch.Tensor)}
    objects = {name: each.owner if isinstance(each, PlainState) else each for name, each in objects.items()}
    for name, each in objects.items():
        if isinstance(each, Optimizer):
            strange = [
                tuple(parameter.shape)
                for group in each.param_groups
                for parameter in group["params"]
                if id(parameter) not in owned and not _is_held(parameter, objects)
            ]
            if strange:
                yield (
                    f"{name} trains {len(strange)} parameters that no object in state= holds, the first of shape"
                    f" {strange[0]}: their values are not saved. Give their module too"
                )
            is_driven = getattr(each.step, "_wrapped_by_lr_sched", False)
            others = (other for other in objects.values() if not isinstance(other, Optimizer))
            has_scheduler = any(getattr(other, "optimizer", None) is each for other in others)
            if is_driven and not has_scheduler:
                yield f"a scheduler drives {name} and is not in state=: its place in the schedule is not saved"
        if isinstance(each, LRScheduler) and not any(each.optimizer is other for other in objects.values()):
            yield f"{name} drives an optimizer that is not in state=: its moments are not saved"
        for path, owner in _owners(name, each):
            yield from _generators(owner, path, objects)


def _owners(name: str, each: Any) -> Iterator[tuple[str, Any]]:
    """Yield what may keep a generator: an object, or every part of a module."""
    if isinstance(each, torch.nn.Module):
        yield from ((f"{name}.{path}" if path else name, part) for path, part in each.named_modules())
    elif not isinstance(each, Optimizer | LRScheduler | GeneratorState):
        yield name, each


def _generators(owner: Any, name: str, objects: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each random number generator that an object keeps for itself."""
    given = [each.generator for each in objects.values() if isinstance(each, GeneratorState)]
    try:
        members = vars(owner)
    except TypeError:
        return
    for attribute, value in members.items():
        if isinstance(value, GENERATORS) and not any(value is each for each in given):
            yield (
                f"{name}.{attribute} is a random number generator of its own, whose place is not saved: give it too,"
                f" state={{..., '{attribute}': {name}.{attribute}}}, or draw from the global generators"
            )


def watch_optimizers(objects: Mapping[str, Any], saw: Callable[[Optimizer], None] = lambda _: None) -> Any:
    """Show `saw` each optimizer that steps, and say once, at its first step, that one is not in `state=`.

    Returns the handle that ends the watch.
    """
    known = weakref.WeakSet(each for each in objects.values() if isinstance(each, Optimizer))
    looked_at = weakref.WeakSet[Optimizer]()

    def stepped(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        saw(optimizer)
        if optimizer not in looked_at:
            looked_at.add(optimizer)
            scaler = _scaler_that_steps()
            if optimizer in known and scaler is not None and not any(scaler is each for each in objects.values()):
                log.warning(
                    "a GradScaler steps %s that is not in state=: a resumed training scales its losses otherwise. Give"
                    " it too, state={..., 'scaler': scaler}",
                    type(optimizer).__name__,
                )
        if optimizer not in known:
            known.add(optimizer)
            log.warning(
                "a %s steps that is not in state=: its moments are not saved, and a resumed training differs. Give it"
                " in state=, or leave it if it belongs to another training",
                type(optimizer).__name__,
            )

    return register_optimizer_step_post_hook(stepped)


def _scaler_that_steps() -> GradScaler | None:
    """Return the scaler in whose `step()` an optimizer steps now."""
    frame = sys._getframe(2)
    for _ in range(_FRAMES):
        if (scaler := frame.f_locals.get("self")) is not None and isinstance(scaler, GradScaler):
            return scaler if scaler.is_enabled() else None
        if frame.f_back is None:
            return None
        frame = frame.f_back
    return None


def _tensors(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _is_held(parameter: torch.Tensor, objects: Mapping[str, Any]) -> bool:
    """Whether an object of the user's holds a tensor as an attribute."""
    return any(
        value is parameter
        for each in objects.values()
        if not isinstance(each, torch.nn.Module | Optimizer) and hasattr(each, "__dict__")
        for value in vars(each).values()
    )
