"""Objects without a `state_dict` in `state=`: their plain attributes, and generators.

An object that counts something, such as early stopping (the Trainer's callback, one of the user's own), keeps it in
plain attributes: numbers, text, tensors and containers of them. Those are saved and put back. Functions, classes and
loggers stay as the script has them; any other attribute refuses the object by name, since a part of it would be lost
in silence. A random number generator is saved by its own state.
"""

import logging
import random
import types
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from trainhooks.core.restore import Restore
from trainhooks.errors import StateUnsupported
from trainhooks.pytorch.checkpoint import tree
from trainhooks.pytorch.data.held import GENERATORS
from trainhooks.pytorch.data.private import put_state, state_of

_STAYS = (types.FunctionType, types.BuiltinFunctionType, types.MethodType, type, types.ModuleType, logging.Logger)
"""What a script sets up and a training does not change."""

_CONTAINERS = (Mapping, list, tuple, set, str, Tensor, torch.nn.Module)


class GeneratorState:
    """A random number generator as an object with a state."""

    def __init__(self, generator: Any) -> None:
        self.generator = generator

    def state_dict(self) -> dict[str, Any]:
        """Return where it is."""
        return {"generator": type(self.generator).__name__, "state": _plain(state_of(self.generator))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put it there.

        Raises:
            ValueError: it was a generator of another kind.
        """
        if state["generator"] != type(self.generator).__name__:
            raise ValueError(f"it was a {state['generator']} and is a {type(self.generator).__name__}")
        value = state["state"]
        put_state(self.generator, _tuples(value) if isinstance(value, list) else value)


class PlainState:
    """The plain attributes of an object.

    Args:
        name: in `state=`, for error messages.

    Raises:
        StateUnsupported: it has no attributes, or one that is not plain.
    """

    def __init__(self, name: str, owner: Any) -> None:
        self.owner = owner
        self.mode = Restore.CHECKPOINT
        """Whose settings hold where the script builds the object with others than before."""
        attributes: dict[str, Any] = getattr(owner, "__dict__", {})
        problems = [key for key, each in attributes.items() if not _is_known(each)]
        if not attributes or isinstance(owner, (*_STAYS, *_CONTAINERS, *GENERATORS)) or problems:
            why = f": its attribute {problems[0]} is a {type(attributes[problems[0]]).__name__}" if problems else ""
            raise StateUnsupported(
                f"{name} in state= is a {type(owner).__name__}, which cannot be saved and restored{why}.",
                hint="Give objects with state_dict() and load_state_dict(), such as a model, optimizer or scheduler, or"
                " with plain attributes alone (numbers, text, tensors, lists and dicts of them).",
            )
        self.settings = {key: each for key, each in vars(owner).items() if isinstance(each, bool | int | float | str)}
        """Its numbers and texts as the script has set them."""
        self._built = self.settings
        """Those that hold: of the checkpoint where `restore=` says so."""

    def state_dict(self) -> dict[str, Any]:
        """Return the attributes, and what the script had set them to."""
        attributes = {key: each for key, each in vars(self.owner).items() if not isinstance(each, _STAYS)}
        return {"attributes": attributes, "built": self._built}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put the attributes back; under `state-only` those that the script now builds otherwise stay."""
        built, mine = state["built"], self.settings
        for key, value in state["attributes"].items():
            is_changed = key in built and key in mine and built[key] != mine[key]
            if self.mode is Restore.STATE_ONLY and is_changed:
                continue
            now = getattr(self.owner, key, None)
            if isinstance(now, Tensor) and isinstance(value, Tensor) and now.shape == value.shape:
                with torch.no_grad():
                    now.copy_(value)  # an optimizer may train it
            else:
                setattr(self.owner, key, value)
        self._built = mine if self.mode is Restore.STATE_ONLY else built


def adapted(name: str, each: Any) -> Any:
    """Return an object with `state_dict` and `load_state_dict` that stands for the given one, or that one itself.

    Raises:
        StateUnsupported: nothing of it can be saved.
    """
    if isinstance(each, GENERATORS) and not isinstance(each, random.SystemRandom):
        return GeneratorState(each)
    if hasattr(each, "state_dict") and hasattr(each, "load_state_dict"):
        return each
    return PlainState(name, each)


def _is_known(value: Any) -> bool:
    if isinstance(value, _STAYS):
        return True
    try:
        tree.encode(value, lambda path, tensor: 0)
    except (StateUnsupported, RecursionError):
        return False
    return not isinstance(value, torch.nn.Module)


def _plain(state: Any) -> Any:
    """Return python's state, which is a tuple in a tuple, as lists."""
    return [_plain(each) for each in state] if isinstance(state, tuple) else state


def _tuples(state: Any) -> Any:
    return tuple(_tuples(each) for each in state) if isinstance(state, list) else state
