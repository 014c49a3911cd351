"""A module's state under names that know no wrappers, out of the live module and back into it."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import Module

from trainhooks.pytorch.checkpoint import wrapper

_METHODS = frozenset({"state_dict", "_save_to_state_dict", "get_extra_state"})
"""Of a module, that decide on its state."""
_FILE = Module.__init__.__code__.co_filename
_DICTS = frozenset({dict, OrderedDict})
_PLAIN = frozenset({torch.Tensor, torch.nn.Parameter})


def unwrapped(each: Any) -> Any:
    """Return the module inside all wrappers; any other object as it is."""
    return wrapper.unwrapped(each) if isinstance(each, torch.nn.Module) else each


def state_of(each: Any, walked: wrapper.Walked | None = None) -> Any:
    """Return an object's state; a module's under names that know no wrappers, also of its parts.

    Args:
        walked: of the module, where that has been done; parameters then stand for themselves, not detached.
    """
    if walked is not None and (plain := _read(walked)) is not None:
        return plain
    state = each.state_dict()
    if not isinstance(each, torch.nn.Module):
        return state
    if not (wrapper.has_wrappers(each) if walked is None else walked.has_wrappers):
        return state
    return _renamed(state, lambda name: wrapper.plain_name(each, name))


def _read(walked: wrapper.Walked) -> Any:
    """Return what `state_dict()` of a module would, without a call and a new tensor for each part.

    None where anything in it may say otherwise: a class or an object with a method or a hook of its own, a wrapper, a
    module in two places.
    """
    if walked.has_wrappers or not walked.is_tree or not _is_torchs_own():
        return None
    for kind in {type(module) for _, module in walked.modules}:
        if any(getattr(kind, method) is not getattr(Module, method) for method in _METHODS):
            return None
    state: OrderedDict[str, Any] = OrderedDict()
    versions: OrderedDict[str, Any] = OrderedDict()
    for name, module in walked.modules:
        own = module.__dict__
        if own.get("_state_dict_hooks", True) or own.get("_state_dict_pre_hooks", True):
            return None
        if "state_dict" in own or "_save_to_state_dict" in own or "get_extra_state" in own:
            return None
        versions[name] = {"version": module._version}
        parameters, buffers = own.get("_parameters"), own.get("_buffers")
        if type(parameters) not in _DICTS or type(buffers) not in _DICTS:
            return None
        if parameters:
            prefix = f"{name}." if name else ""
            for key, tensor in parameters.items():
                if tensor is not None:
                    state[prefix + key] = tensor if type(tensor) in _PLAIN else tensor.detach()
        if buffers:
            prefix, passing = f"{name}." if name else "", own["_non_persistent_buffers_set"]
            for key, tensor in buffers.items():
                if tensor is not None and key not in passing:
                    state[prefix + key] = tensor if type(tensor) in _PLAIN else tensor.detach()
    state._metadata = versions  # type: ignore[attr-defined]
    return state


def _is_torchs_own() -> bool:
    """Whether nobody has put other methods into torch's class of modules."""
    codes = [getattr(getattr(Module, method), "__code__", None) for method in _METHODS]
    return all(code is not None and code.co_filename == _FILE for code in codes)


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
