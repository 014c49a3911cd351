"""How the state of an object is made up, kept between two saves, so that the training waits for less of each.

The tree of a state rarely changes while its values change at each step. A plan is made from one capture. At the next
save the training's thread proves that the tree is still the same, and takes its tensors by reference and its values
(immutable ones by reference, others encoded at once). The thread that writes makes the JSON of them. A tree that is
not proven to be the same is captured anew.
"""

from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import Parameter

from trainhooks.errors import StateUnsupported
from trainhooks.pytorch.checkpoint import tree
from trainhooks.pytorch.checkpoint.capture import Part, capture, identity, versions_of

_MOST_MISSES = 4
"""In a row: a state that is otherwise at each save gets no further plan."""
_DICTS = frozenset({dict, OrderedDict, Counter, defaultdict})
_SEQUENCES = frozenset({list, tuple})
_KEYS = frozenset({str, int, bool, type(None)})
_IMMUTABLE = frozenset({type(None), bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device})
_TENSORS = frozenset({Tensor, Parameter})


class Planned:
    """Captures the states of one object, again and again."""

    def __init__(self) -> None:
        self._plan: Plan | None = None
        self._misses = 0

    def capture(self, value: Any, *, of: str) -> Part:
        """Take a value as `capture.capture` does.

        Raises:
            StateUnsupported: naming what cannot be saved.
        """
        if self._plan is not None and (part := self._plan.match(value)) is not None:
            self._misses = 0
            return part
        part = capture(value, of=of)
        self._plan = None
        if self._misses < _MOST_MISSES and part.paths and not part.sharded:
            self._misses += 1
            self._plan = Plan.of(value, part)
        return part


@dataclass(frozen=True, slots=True)
class _Container:
    """A dict, list or tuple as it is encoded. Its values lie behind those of the containers before it."""

    at: int
    keys: tuple[Any, ...] | None
    """Of a dict."""
    encoded_keys: tuple[Any, ...] | None
    """Of a dict that is written as pairs."""
    name: str
    """What its pairs or items are written under; of a plain dict or list nothing."""
    start: int
    end: int

    def encode(self, forms: list[Any]) -> Any:
        items = forms[self.start : self.end]
        if self.encoded_keys is not None:
            return {self.name: [[key, item] for key, item in zip(self.encoded_keys, items, strict=True)]}
        if self.keys is not None:
            return dict(zip(self.keys, items, strict=True))
        return {self.name: items} if self.name else items


class Plan:
    """The tree of one state. Holds neither tensors nor anything else of the training."""

    def __init__(self) -> None:
        self._containers: list[_Container] = []
        self._checks: list[tuple[int, Any, tuple[Any, ...] | None, tuple[type, ...] | None, int]] = []
        """Of each container place, type, keys, their types where one is no text (1 and True are equal), and size."""
        self._types: list[type] = []
        """Of every value, in order of depth."""
        self._leaves: list[int] = []
        """Places of values that never change, taken by reference."""
        self._integers: list[int] = []
        """Places of lists of integers, which are copied."""
        self._others: list[int] = []
        """Places of other values, such as arrays and sets, which are encoded at once."""
        self._forms: list[Any] = []
        """JSON by place, of the tensors; of all else None."""
        self._tensors: list[int] = []
        """Places of tensors, in the order of the encoded tree."""
        self._paths: list[str] = []
        self._names: list[tuple[str, int]] = []
        """Name in the file, and which tensor."""
        self._aliases: dict[str, str] = {}
        self._starts: list[int] = []
        self._alike: list[int] = []
        """Tensors that begin where others do, or have no memory."""
        self._identities: list[tuple[Any, ...]] = []
        self._with_graph: list[bool] = []
        self._plain: list[int] = []
        """Tensors that are no parameters: one with a graph is detached, so that the graph is not kept. A parameter has
        none, and what is copied of it needs no other object: hundreds cost a tenth of a capture."""

    @classmethod
    def of(cls, value: Any, part: Part) -> "Plan | None":
        """Return the plan of what was captured; None where it has something that no plan can prove to be the same."""
        plan = cls()
        if not plan._read(value, part):
            return None
        again = plan.match(value)
        if again is None or again.encoded() != part.encoded():
            return None
        if [*again.tensors] != [*part.tensors] or [*again.paths] != [*part.paths]:
            return None
        return plan

    def match(self, value: Any) -> Part | None:
        """Take a value whose tree is that of the plan; None: it is not, or nothing proves it."""
        values: list[Any] = [value, versions_of(value)]
        for at, kind, keys, key_types, size in self._checks:
            each = values[at]
            if type(each) is not kind:
                return None
            if keys is None:
                if len(each) != size:
                    return None
                values += each
                continue
            if tuple(each) != keys:
                return None
            if key_types is not None and tuple(map(type, each)) != key_types:
                return None
            values += each.values()
        if list(map(type, values)) != self._types:
            return None
        tensors = self._match_tensors([values[at] for at in self._tensors])
        if tensors is None:
            return None
        encoded: list[tuple[int, Any]] = []
        for at in self._integers:
            copy = list(values[at])
            if not tree.are_integers(copy):
                return None
            encoded.append((at, copy))
        try:
            encoded += [(at, tree.encode(values[at], _no_tensor)) for at in self._others]
        except StateUnsupported:
            return None
        leaves = [values[at] for at in self._leaves]
        return Part(
            encoded=partial(self._encode, leaves, encoded),
            tensors={name: tensors[number] for name, number in self._names},
            aliases=dict(self._aliases),
            paths=dict(zip(self._paths, tensors, strict=True)),
        )

    def _match_tensors(self, tensors: list[Tensor]) -> list[Tensor] | None:
        try:
            if _starts(tensors) != self._starts or True in [each.is_quantized for each in tensors]:
                return None
        except RuntimeError:  # one without memory of its own, such as a sparse one
            return None
        if [identity(tensors[number]) for number in self._alike] != self._identities:
            return None
        if [tensors[number].requires_grad for number in self._plain] != self._with_graph:
            return None
        for number, has_graph in zip(self._plain, self._with_graph, strict=True):
            if has_graph:
                tensors[number] = tensors[number].detach()
        return tensors

    def _encode(self, leaves: Sequence[Any], encoded: Sequence[tuple[int, Any]]) -> tuple[Any, Any]:
        forms = self._forms.copy()
        for at, leaf in zip(self._leaves, leaves, strict=True):
            forms[at] = tree.encode(leaf, _no_tensor)
        for at, form in encoded:
            forms[at] = form
        for container in reversed(self._containers):
            forms[container.at] = container.encode(forms)
        return forms[0], forms[1]

    def _read(self, value: Any, part: Part) -> bool:
        """Make the plan of a value that was captured; False where that cannot be."""
        values, forms = [value, versions_of(value)], [*part.encoded()]
        at = 0
        while at < len(values):
            each, form, kind = values[at], forms[at], type(values[at])
            self._types.append(kind)
            self._forms.append(None)
            if kind in _TENSORS:
                self._forms[at] = form
            elif isinstance(each, Tensor):
                return False
            elif kind is list and tree.are_integers(each):
                self._integers.append(at)
            elif kind in _SEQUENCES or (kind in _DICTS and _KEYS.issuperset(map(type, each))):
                self._add(at, each, form, values, forms)
            elif kind in _IMMUTABLE or issubclass(kind, np.generic):
                self._leaves.append(at)
            else:
                self._others.append(at)
            at += 1
        self._tensors = [at for at in self._in_order() if self._forms[at] is not None]
        if len(self._tensors) != len(part.paths):
            return False  # two of one path, or one in a container that no plan reads
        self._read_tensors([values[at] for at in self._tensors], part)
        return True

    def _add(self, at: int, each: Any, form: Any, values: list[Any], forms: list[Any]) -> None:
        start, kind = len(values), type(each)
        keys: tuple[Any, ...] | None = None
        key_types: tuple[type, ...] | None = None
        encoded_keys: tuple[Any, ...] | None = None
        name = ""
        if kind in _DICTS:
            keys = tuple(each)
            types = tuple(map(type, keys))
            key_types = None if set(types) <= {str} else types
            if not tree.is_plain(each):
                [(name, pairs)] = form.items()
                encoded_keys = tuple(key for key, _ in pairs)
                forms += [item for _, item in pairs]
            else:
                forms += form.values()
            values += each.values()
        else:
            if kind is tuple:
                [(name, form)] = form.items()
            forms += form
            values += each
        self._containers.append(_Container(at, keys, encoded_keys, name, start, len(values)))
        self._checks.append((at, kind, keys, key_types, len(values) - start))

    def _in_order(self) -> Iterator[int]:
        """Yield all places as the encoded tree has them, depth first."""
        below = {each.at: range(each.start, each.end) for each in self._containers}
        rest = [1, 0]
        while rest:
            at = rest.pop()
            yield at
            rest += reversed(below.get(at, ()))

    def _read_tensors(self, tensors: list[Tensor], part: Part) -> None:
        self._paths, self._aliases = list(part.paths), dict(part.aliases)
        first: dict[int, int] = {}
        for number, at in enumerate(self._tensors):
            first.setdefault(self._forms[at]["$tensor"], number)
        self._names = [(name, first[number]) for number, name in enumerate(part.tensors)]
        self._starts = _starts(tensors)
        begun = Counter(self._starts)
        self._alike = [number for number, start in enumerate(self._starts) if start < 0 or begun[start] > 1]
        self._identities = [identity(tensors[number]) for number in self._alike]
        self._plain = [number for number, each in enumerate(tensors) if type(each) is Tensor]
        self._with_graph = [tensors[number].requires_grad for number in self._plain]


def _starts(tensors: list[Tensor]) -> list[int]:
    """Return for each tensor the first one that begins at its address; -1 where it has none."""
    first = {0: -1}
    return [first.setdefault(each.data_ptr(), number) for number, each in enumerate(tensors)]


def _no_tensor(path: str, tensor: Tensor) -> int:
    raise StateUnsupported("A tensor is where none was.", hint="It is captured anew.")
