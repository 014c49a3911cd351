"""Which sample a request gets: the ordinals of one attempt of a run. docs/samples.md is the user's page.

The n-th time that an attempt asks a question, it gets the n-th sample. An ordinal is *held* while a client waits for
its answer, and *used* once the answer was delivered. A request takes the lowest ordinal of its scope that is neither: a
new one, or one that was given back because its client got an error or disconnected.

Scopes of one run never share a sample. An ordinal belongs to the scope that took it first, in this attempt or an
earlier one, so that a scope gets the same sequence in each attempt, however the scopes interleave.
"""

from bisect import insort
from collections.abc import Callable, Iterable
from itertools import count
from typing import NamedTuple

Owners = dict[str, dict[int, str]]
"""By key: which scope an ordinal belongs to."""


Stored = Callable[[int], bool]
"""Says whether a sample of the question is stored."""


class Taking(NamedTuple):
    """What a request asks for in its `Kdproxy-Sample` header; neither member: the next one of its scope."""

    ordinal: int | None = None
    is_fresh: bool = False
    """Whether it wants a sample that is not stored yet."""


NEXT = Taking()


class _Key:
    """The ordinals of one key. All below `top` are used, held or free; above it, only those in `held` and `ahead`."""

    __slots__ = ("ahead", "free", "held", "top")

    def __init__(self, top: int = 0) -> None:
        self.top = top
        self.free: list[int] = []
        """In order."""
        self.held: dict[int, list[int]] = {}
        """By ordinal: how many clients hold it, and how often it was used."""
        self.ahead: set[int] = set()
        """Used ones at or above `top`: they were asked for by number."""

    def is_used(self, ordinal: int) -> bool:
        """Whether an ordinal is used."""
        held = self.held.get(ordinal)
        if held is not None:
            return held[1] > 0
        return ordinal in self.ahead or (ordinal < self.top and ordinal not in self.free)

    @property
    def is_plain(self) -> bool:
        """Whether `top` says everything."""
        return not (self.free or self.held or self.ahead)


class Ordinals:
    """The ordinals of one attempt. Pure; a key is any text that names a question."""

    def __init__(self) -> None:
        """Begin at 0."""
        self._keys: dict[str, int | _Key] = {}  # a million of these: a number where it says everything
        self._single: dict[str, int] = {}
        """Keys with such a number that one client holds the next ordinal of, and how often it was used: the usual case,
        made cheap."""
        self._owners: Owners = {}
        self.has_scopes = False
        """Whether any request of the run named a scope."""

    def take(self, key: str, scope: str = "", taking: Taking = NEXT, stored: Stored | None = None) -> int:
        """Hold an ordinal for a client, which must be released.

        Args:
            stored: says which samples are stored; needed for a fresh one.
        """
        if taking is NEXT and not scope and not self.has_scopes and key not in self._single:
            top = self._keys.get(key, 0)
            if isinstance(top, int):
                self._single[key] = 0
                return top
        state = self._of(key)
        if taking.ordinal is not None:
            ordinal = taking.ordinal
            was_used = state.is_used(ordinal)
            if ordinal in state.free:
                state.free.remove(ordinal)
            held = state.held.setdefault(ordinal, [0, int(was_used)])
            held[0] += 1
            self._own(key, ordinal, scope)
            return ordinal
        owners = self._owners.get(key)
        fresh = stored if taking.is_fresh else None
        for index, ordinal in enumerate(state.free):
            if (owners is None or owners.get(ordinal, scope) == scope) and not (fresh and fresh(ordinal)):
                del state.free[index]
                break
        else:
            ordinal = self._next(state, owners, scope, fresh)
        state.held[ordinal] = [1, 0]
        self._own(key, ordinal, scope)
        return ordinal

    def _next(self, state: _Key, owners: dict[int, str] | None, scope: str, fresh: Stored | None) -> int:
        while True:
            ordinal = state.top
            state.top += 1
            if ordinal in state.ahead:
                state.ahead.remove(ordinal)
            elif ordinal in state.held:
                pass
            elif (owners is not None and owners.get(ordinal, scope) != scope) or (fresh and fresh(ordinal)):
                state.free.append(ordinal)  # the highest: it stays in order
            else:
                return ordinal

    def _own(self, key: str, ordinal: int, scope: str) -> None:
        self.has_scopes = self.has_scopes or bool(scope)
        if self.has_scopes:
            self._owners.setdefault(key, {}).setdefault(ordinal, scope)

    def use(self, key: str, ordinal: int) -> None:
        """Count a held ordinal as used: its answer is about to be delivered."""
        if key in self._single:
            self._single[key] += 1
            return
        self._of(key).held[ordinal][1] += 1

    def unuse(self, key: str, ordinal: int) -> None:
        """Take a use back: the answer could not be delivered."""
        if key in self._single:
            self._single[key] -= 1
            return
        self._of(key).held[ordinal][1] -= 1

    def release(self, key: str, ordinal: int) -> None:
        """Release a held ordinal: it is free again unless it was used."""
        uses = self._single.pop(key, None)
        if uses is not None:
            if uses:
                self._keys[key] = ordinal + 1
            return
        state = self._of(key)
        held = state.held[ordinal]
        held[0] -= 1
        if held[0]:
            return
        del state.held[ordinal]
        is_used = held[1] > 0
        if not is_used and ordinal < state.top:
            insort(state.free, ordinal)
        elif is_used and ordinal >= state.top:
            state.ahead.add(ordinal)
        if state.is_plain:
            self._keys[key] = state.top

    def may_return(self, key: str, scope: str = "") -> bool:
        """Whether clients hold ordinals of a scope and none is free: one that asks again may wait for its own."""
        if key in self._single:
            return True
        state = self._keys.get(key)
        if state is None or isinstance(state, int) or not state.held:
            return False
        owners = self._owners.get(key)
        return not any(owners is None or owners.get(ordinal, scope) == scope for ordinal in state.free)

    # -- what the log says ------------------------------------------------------------------------------------

    @classmethod
    def of_used(cls, in_order: dict[str, int], others: dict[str, set[int]]) -> "Ordinals":
        """Return the ordinals of an attempt that nobody holds one of.

        Args:
            in_order: by key, how many ordinals are used, from 0 on.
            others: by key, the used ordinals.
        """
        found = cls()
        found._keys.update(in_order)
        for key, used in others.items():
            top = next(ordinal for ordinal in count() if ordinal not in used)
            state = _Key(top)
            state.ahead = {ordinal for ordinal in used if ordinal > top}
            found._keys[key] = state if state.ahead else top
        return found

    def note_returned(self, key: str, ordinal: int) -> None:
        """Make a used ordinal that nobody holds free again."""
        state = self._of(key)
        held = state.held.get(ordinal)
        if held is not None:
            held[1] = 0
        elif ordinal in state.ahead:
            state.ahead.remove(ordinal)
        elif ordinal < state.top and ordinal not in state.free:
            insort(state.free, ordinal)

    def own_as(self, owners: Owners) -> None:
        """Keep the ordinals apart that belong to the scopes of the run, from now on."""
        self._owners, self.has_scopes = owners, True

    def hold_as(self, earlier: "Ordinals") -> None:
        """Hold what clients of an earlier state of the same attempt hold: they still wait for their answers."""
        for key in list(earlier._single):
            earlier._of(key)
        for key, state in earlier._keys.items():
            if isinstance(state, _Key):
                for ordinal, (clients, _) in state.held.items():
                    for _ in range(clients):
                        self.take(key, earlier._owners.get(key, {}).get(ordinal, ""), Taking(ordinal))

    def used(self) -> Iterable[tuple[str, int]]:
        """Yield how many ordinals of each key are used."""
        for key in list(self._single):
            self._of(key)
        for key, state in self._keys.items():
            if isinstance(state, int):
                yield key, state
            else:
                taken = state.top - len(state.free) + len(state.ahead)
                yield key, taken - sum(not uses for o, (_, uses) in state.held.items() if o < state.top)

    def _of(self, key: str) -> _Key:
        state = self._keys.get(key, 0)
        if isinstance(state, int):
            uses = self._single.pop(key, None)
            state = self._keys[key] = _Key(state)
            if uses is not None:
                state.held[state.top] = [1, uses]
                state.top += 1
        return state
