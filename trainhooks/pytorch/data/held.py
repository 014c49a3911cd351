"""Random number generators that a user's objects keep for themselves: found, and seeded for each sample.

A data set, its transforms or a collate function may draw from a generator of its own (`self.rng`, a transform's, one in
a closure or at the top of the script). Its place is in no checkpoint, and each worker has a copy. So it is seeded for
each sample as the generators of the process are: what a sample draws follows from what it is, whoever loads it.

A source that keeps its own place is left as it is: its `state_dict` has to hold the generator, which is tried.
"""

import functools
import logging
import random
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

from trainhooks.core import seed as seeds
from trainhooks.errors import StateUnsupported
from trainhooks.pytorch.checkpoint import tree
from trainhooks.pytorch.data.private import put_state, seed_generator, state_of

log = logging.getLogger("trainhooks")

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
_LONG = 64
"""A collection with more members is data: it is not looked through."""
_MOST = 4_000
"""How many objects are looked at."""
_LIBRARIES = frozenset(
    {"torch", "torchdata", "torchvision", "torchaudio", "numpy", "datasets", "pandas", "pyarrow", "PIL", "transformers"}
    | {"tokenizers", "litdata", "streaming", "builtins", "collections", "functools", "random", "trainhooks"}
)
"""What the code of these refers to is their own matter."""
_KEEP_THEIR_PLACE = frozenset({"datasets", "torchdata", "litdata", "streaming"})
"""Generators in their objects follow from the epoch, or stand in their own states."""
_PLAIN: tuple[type, ...] = (str, bytes, int, float, complex, type(None), torch.Tensor, np.ndarray, np.generic)
_PLAIN += (type, types.ModuleType, logging.Logger, PurePath)


class HeldGenerators:
    """The generators that the objects behind a loader hold, in this process.

    Args:
        owners: by a name that the seeds follow from.
    """

    def __init__(self, owners: Mapping[str, Any]) -> None:
        self._owners = owners
        self._found: dict[str, Any] = {}

    def look(self) -> None:
        """Find them: in each worker, and again in each epoch, since a data set may make a new one."""
        self._found = {name: each for name, each in generators_in(self._owners).items() if not _is_unseeded(each)}

    def look_again(self) -> None:
        """Find what the first sample has made, and say that the sample itself was not loaded under a seed of ours."""
        before = set(self._found)
        self.look()
        for name in self._found.keys() - before:
            log.warning(
                "not resumed: %s is made while the first sample is loaded: that sample's random numbers are its own,"
                " later ones are seeded. Make it in __init__ or worker_init_fn",
                name,
            )

    def seed(self, seed: int) -> None:
        """Seed each of them."""
        for name, each in self._found.items():
            seed_generator(each, seeds.derive("held", seed, name))

    @contextmanager
    def kept_apart(self) -> Iterator[None]:
        """Put them back afterwards, in the main process: the loop may draw from the same ones."""
        if not self._found or get_worker_info() is not None:
            yield
            return
        before = [(each, state_of(each)) for each in self._found.values()]
        try:
            yield
        finally:
            for each, state in before:
                put_state(each, state)


def generators_in(owners: Mapping[str, Any]) -> dict[str, Any]:
    """Return the generators that objects hold, each once, by where they lie; the process's own are left out."""
    found: dict[str, Any] = {}
    known = {id(each) for each in (_python_generator(), _numpy_generator(), torch.default_generator)}
    waiting: deque[tuple[str, Any]] = deque(owners.items())
    kept: list[Any] = []  # what was looked at stays alive, so that no id is used twice
    while waiting and len(kept) < _MOST:
        name, value = waiting.popleft()
        if isinstance(value, _PLAIN) or id(value) in known:
            continue
        known.add(id(value))
        kept.append(value)
        if isinstance(value, GENERATORS):
            found[name] = value
        else:
            waiting.extend(_parts(name, value))
    return found


def problems(source: Any, others: Mapping[str, Any], *, keeps_its_place: bool) -> Iterator[str]:
    """Yield a sentence for each held generator that is not resumed.

    Args:
        others: by name, what else loads or orders the data: a collate function, a sampler.
        keeps_its_place: whether the source is put at its place by its own state.
    """
    found = generators_in({"data set": source, **others})
    for name, each in found.items():
        if _is_unseeded(each):
            yield f"{name} draws from the operating system, which nothing can repeat: use random.Random() there"
    if keeps_its_place:
        own = {name: each for name, each in found.items() if name.startswith("data set") and not _is_unseeded(each)}
        for name in _unsaved(source, own):
            yield (
                f"{name} is a random number generator that the source's own state_dict() does not change with: save its"
                " state there, or draw from the global generators, which are seeded for each sample"
            )


def _unsaved(source: Any, generators: Mapping[str, Any]) -> list[str]:
    """Return which generators a source's state does not follow: it is asked before and after a draw."""
    unsaved = []
    for name, each in generators.items():
        state = state_of(each)
        try:
            before = _content(source)
            _draw(each)
            if before == _content(source):
                unsaved.append(name)
        except Exception:  # some can be asked only while they are read: they meet it then
            unsaved.append(name)
        finally:
            put_state(each, state)
    return unsaved


def _content(source: Any) -> tuple[Any, list[bytes]]:
    tensors: list[bytes] = []

    def put(path: str, tensor: torch.Tensor) -> int:
        tensors.append(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return len(tensors)

    try:
        return tree.encode(source.state_dict(), put), tensors
    except StateUnsupported:
        return repr(source.state_dict()), tensors


def _draw(generator: Any) -> None:
    if isinstance(generator, torch.Generator):
        torch.empty(1, device=generator.device).uniform_(generator=generator)
    else:
        generator.random()


def _is_unseeded(generator: Any) -> bool:
    return isinstance(generator, random.SystemRandom)


def _parts(name: str, value: Any) -> Iterable[tuple[str, Any]]:
    """Return what an object holds, as far as a draw could reach it."""
    match value:
        case dict():
            items: Iterable[tuple[Any, Any]] = value.items() if len(value) <= _LONG else ()
        case list() | tuple() | set() | frozenset() | deque():
            items = enumerate(value) if len(value) <= _LONG else ()
        case functools.partial():
            items = (("func", value.func), ("args", value.args), ("keywords", value.keywords))
        case types.MethodType():
            items = (("self", value.__self__), ("function", value.__func__))
        case types.BuiltinMethodType():
            items = (("self", value.__self__),)
        case types.FunctionType():
            items = () if _root(value.__module__) in _LIBRARIES else _of_function(value)
        case _:
            items = _of_object(value)
    return ((f"{name}.{part}", each) for part, each in list(items))


def _of_function(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """Yield what a function's closure, defaults and names refer to."""
    for place, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield place, cell.cell_contents
        except ValueError:  # not filled yet
            continue
    yield from enumerate(function.__defaults__ or ())
    yield from (function.__kwdefaults__ or {}).items()
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        codes += [each for each in code.co_consts if isinstance(each, types.CodeType)]
        for name in code.co_names:
            if name in function.__globals__:
                yield name, function.__globals__[name]


def _of_object(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield an object's attributes, the generators of its class, and what its class's own functions refer to."""
    root = _root(type(value).__module__)
    for name, each in _attributes(value):
        if not (root in _KEEP_THEIR_PLACE and isinstance(each, GENERATORS)):
            yield name, each
    for kind in type(value).__mro__:
        if _root(kind.__module__) in _LIBRARIES:
            continue
        for name, each in list(vars(kind).items()):
            function = each.__func__ if isinstance(each, staticmethod | classmethod) else each
            if isinstance(function, (*GENERATORS, types.FunctionType)):
                yield name, function


def _attributes(value: Any) -> list[tuple[str, Any]]:
    try:
        found = dict(object.__getattribute__(value, "__dict__"))
    except Exception:  # an object without one, or one that is a stand-in for another
        found = {}
    for kind in type(value).__mro__:
        for name, slot in vars(kind).items():
            if isinstance(slot, types.MemberDescriptorType):
                with suppress(Exception):  # one that was never set
                    found.setdefault(name, slot.__get__(value, type(value)))
    return list(found.items())


def _root(module: str | None) -> str:
    return (module or "").partition(".")[0]


def _python_generator() -> Any:
    function: Callable[..., Any] = random.random
    return function.__self__  # type: ignore[attr-defined]


def _numpy_generator() -> Any:
    function: Callable[..., Any] = np.random.random_sample
    return function.__self__  # type: ignore[attr-defined]
