"""Names of a model's weights without the wrappers around its parts: DDP, torch.compile, FSDP, activation checkpointing.

What is a wrapper, the live module tree says and no text: a real submodule may be called `module`. Our files hold names
without wrappers, so a model that is compiled or wrapped on one side alone is still the same model.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property, partial
from typing import Any, TypeVar

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

_Value = TypeVar("_Value")
_INNER = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch.compile, FullyShardedDataParallel and activation checkpointing call the module that they wrap."""
_COMPONENTS = frozenset({*_INNER, "module"})


def inner_name(module: nn.Module) -> str | None:
    """Return what a wrapper calls the module inside it; None for a module that is no wrapper."""
    children = module._modules
    if "module" in children and isinstance(module, DistributedDataParallel | DataParallel):
        return "module"
    return next((name for name in children if name in _INNER), None) if len(children) == 1 else None


class Walked:
    """A module and all in it, walked once for all that one save asks of it."""

    def __init__(self, root: nn.Module) -> None:
        self.root = root
        self.modules: list[tuple[str, nn.Module]] = []
        """(plain name, module) of each, once, in the order of `named_modules`. A wrapper has the name of what is inside
        it."""
        self.has_wrappers = False
        """Without a wrapper in a module every live name is a plain name."""
        self.is_tree = True
        """Whether every module stands in one place."""
        seen: set[int] = set()
        rest = [("", root)]
        while rest:
            name, module = rest.pop()
            if id(module) in seen:
                self.is_tree = False
                continue
            seen.add(id(module))
            self.modules.append((name, module))
            children = module._modules
            if children:
                inside = inner_name(module)
                self.has_wrappers |= inside is not None
                prefix = f"{name}." if name else ""
                rest += [
                    (name if part == inside else prefix + part, child)
                    for part, child in reversed(children.items())
                    if child is not None
                ]

    @cached_property
    def parameters(self) -> list[tuple[str, nn.Parameter]]:
        """(plain name, parameter) of each."""
        return list(_parameters(self.modules))


def walk(root: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return (plain name, module) of a module and all in it. See `Walked.modules`."""
    return Walked(root).modules


def has_wrappers(root: nn.Module) -> bool:
    """Whether there is a wrapper in a module: without one every live name is a plain name."""
    return Walked(root).has_wrappers


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside all wrappers."""
    while (name := inner_name(module)) is not None:
        inside = module._modules[name]
        assert inside is not None
        module = inside
    return module


def plain_name(root: nn.Module, name: str) -> str:
    """Return a live name, such as one of `root.state_dict()`, without the wrappers on its way."""
    kept = []
    at: nn.Module | None = root
    for part in name.split("."):
        inside = None if at is None else inner_name(at)
        if part != inside:
            kept.append(part)
            if inside is not None:  # a hook of the wrapper has taken its name out already
                at = unwrapped(at) if at is not None else None
        at = None if at is None else at._modules.get(part)
    return ".".join(kept)


def renaming(root: nn.Module) -> Callable[[str], str]:
    """Return what `plain_name` is for many names of one module, which is walked once where it has no wrappers."""
    return partial(plain_name, root) if has_wrappers(root) else str


def plain(root: nn.Module, members: Mapping[str, _Value]) -> dict[str, _Value]:
    """Return members that are named by `root`'s live names under the plain ones."""
    rename = renaming(root)
    return {rename(name): value for name, value in members.items()}


def live_names(root: nn.Module, names: Iterable[str]) -> dict[str, str]:
    """Return the live name of each plain one."""
    rename = renaming(root)
    return {rename(name): name for name in names}


def named_parameters(root: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of a module, each once, by plain name."""
    return _parameters(walk(root))


def parameters_of(objects: Mapping[str, Any]) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters of all modules as (`OBJECT.NAME`, parameter)."""
    for name, each in objects.items():
        if isinstance(each, nn.Module):
            for path, parameter in named_parameters(each):
                yield f"{name}.{path}", parameter


def _parameters(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Parameter]]:
    seen: set[int] = set()
    for name, module in modules:
        for own, parameter in module._parameters.items():
            if parameter is not None and id(parameter) not in seen:
                seen.add(id(parameter))
                yield f"{name}.{own}" if name else own, parameter


def fitted(root: nn.Module, saved: Mapping[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    """Return saved weights under plain names, where others, or a release before, saved them with wrappers' names.

    A part of a name goes only where the live tree has no such submodule. Names that fit as they are stay.
    """
    wanted = set(wanted)
    if wanted <= saved.keys():
        return dict(saved)
    found = {}
    for name, value in saved.items():
        known = name if name in wanted else _without_wrappers(root, name)
        found[known if known not in found else name] = value
    return found


def _without_wrappers(root: nn.Module, name: str) -> str:
    kept = []
    at: nn.Module | None = unwrapped(root)
    for part in name.split("."):
        if at is not None and part in _COMPONENTS and part not in at._modules and not hasattr(at, part):
            continue
        kept.append(part)
        below = None if at is None else at._modules.get(part)
        at = None if below is None else unwrapped(below)
    return ".".join(kept)
