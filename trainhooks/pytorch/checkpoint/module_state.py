"""A module's state under names that know no wrappers, out of the live module and back into it."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from trainhooks.pytorch.checkpoint import wrapper


def unwrapped(each: Any) -> Any:
    """Return the module inside all wrappers; any other object as it is."""
    return wrapper.unwrapped(each) if isinstance(each, torch.nn.Module) else each


def state_of(each: Any, walked: wrapper.Walked | None = None) -> Any:
    """Return an object's state; a module's under names that know no wrappers, also of its parts.

    Args:
        walked: of the module, where that has been done.
    """
    state = each.state_dict()
    if not isinstance(each, torch.nn.Module):
        return state
    if not (wrapper.has_wrappers(each) if walked is None else walked.has_wrappers):
        return state
    return _renamed(state, lambda name: wrapper.plain_name(each, name))


def fitted(module: torch.nn.Module, saved: Any) -> Any:
    """Return a module's saved state under plain names: releases before wrote the names of wrappers inside."""
    wanted = wrapper.live_names(module, module.state_dict())
    if wanted.keys() == saved.keys():
        return saved
    found = OrderedDict(wrapper.fitted(module, saved, wanted))
    if hasattr(saved, "_metadata"):
        found._metadata = saved._metadata  # type: ignore[attr-defined]
    return found


def load_into(each: Any, value: Any) -> None:
    """Load a state; a module's under its live names."""
    if isinstance(each, torch.nn.Module):
        live = wrapper.live_names(each, each.state_dict())
        modules = wrapper.live_names(each, (name for name, _ in each.named_modules()))
        value = _renamed(value, lambda name: live.get(name, modules.get(name, name)))
    each.load_state_dict(value)


def _renamed(state: Any, rename: Callable[[str], str]) -> Any:
    """Return a module's state, and the versions of its classes that torch keeps beside it, under other names."""
    renamed = OrderedDict((rename(name), value) for name, value in state.items())
    versions = getattr(state, "_metadata", None)
    if versions is not None:
        renamed._metadata = OrderedDict((rename(name), value) for name, value in versions.items())  # type: ignore[attr-defined]
    return renamed
