"""Which members of a request are in its key: one declarative table per endpoint. docs/keys.md shows all tables.

A member without a row is in the key. A row has an exact position (core/position), a reason, and the source with the
date of reading.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from kdproxy.core import position
from kdproxy.core.position import Positions


class Standing(StrEnum):
    """What a member means for the key and for the stored request."""

    IN = "in"
    """In the key, like any member without a row; listed because one could expect otherwise."""
    OUT = "out"
    """Cannot change the answer."""
    CREDENTIAL = "credential"
    """Out of the key, never logged, and replaced by stars in the stored request."""
    HIDDEN = "hidden"
    """In the key, but replaced by stars in the stored request: it can change the answer and may hold a credential."""
    HOSTED = "hosted"
    """Not pure: a tool at the provider reads data that changes. Stored only with `allow_hosted_tools`."""
    STATE = "state"
    """Not pure: the question depends on state at the provider, or asks for no answer. Never stored."""


def is_asked(value: Any) -> bool:
    """Whether a member asks for something: neither null, false, zero nor empty."""
    return bool(value)


def is_given(value: Any) -> bool:
    """Whether a member is not null."""
    return value is not None


class Member(NamedTuple):
    """One row."""

    position: str
    standing: Standing
    reason: str
    source: str
    when: Callable[[Any], bool | str | None] = is_asked
    """For impure members: whether this value is impure; a text names the cause."""


def rows(standing: Standing, reason: str, source: str, *positions: str) -> tuple[Member, ...]:
    """Make rows that differ only in their position."""
    return tuple(Member(each, standing, reason, source) for each in positions)


@dataclass(frozen=True, slots=True)
class Members:
    """The compiled table of one endpoint."""

    table: tuple[Member, ...] = ()
    out: Positions = field(init=False)
    """Positions that are left out of the key."""
    secret: Positions = field(init=False)
    """Positions that are stars in the stored request."""
    hidden: tuple[str, ...] = field(init=False)
    """Positions that are in the key but stars in the stored request."""
    impure: tuple[Member, ...] = field(init=False)
    _impure: Mapping[str, tuple[Member, ...]] = field(init=False)
    """The same, by the top-level member that contains each."""
    out_fields: frozenset[str] = field(init=False)
    """Fields of a form that are left out of the key."""

    _credential: Positions = field(init=False)

    def __post_init__(self) -> None:
        def having(*standings: Standing) -> tuple[Member, ...]:
            return tuple(member for member in self.table if member.standing in standings)

        def tree(*standings: Standing) -> Positions:
            return position.tree(member.position for member in having(*standings))

        # frozen dataclass: derived fields can only be set this way
        object.__setattr__(self, "out", tree(Standing.OUT, Standing.CREDENTIAL))
        object.__setattr__(self, "secret", tree(Standing.CREDENTIAL, Standing.HIDDEN))
        object.__setattr__(self, "_credential", tree(Standing.CREDENTIAL))
        object.__setattr__(self, "hidden", tuple(member.position for member in having(Standing.HIDDEN)))
        object.__setattr__(self, "impure", having(Standing.HOSTED, Standing.STATE))
        roots = {member: member.position.partition(".")[0].partition("[")[0] for member in self.impure}
        by_root = {root: tuple(each for each in self.impure if roots[each] == root) for root in roots.values()}
        object.__setattr__(self, "_impure", by_root)
        outer = (member.position for member in having(Standing.OUT, Standing.CREDENTIAL))
        object.__setattr__(self, "out_fields", frozenset(name for name in outer if name.isidentifier()))

    def not_pure(self, members: Mapping[str, Any], *, allow_hosted_tools: bool) -> str | None:
        """Return why a request is not cacheable, or None."""
        for name in filter(members.__contains__, self._impure):
            for member in self._impure[name]:
                if allow_hosted_tools and member.standing is Standing.HOSTED:
                    continue
                outer = member.position == name
                for value in (members[name],) if outer else position.found(members, member.position):
                    if what := member.when(value):
                        what = what if isinstance(what, str) else member.position
                        is_hosted = member.standing is Standing.HOSTED
                        return f"hosted tool {what}" if is_hosted else f"{what}: {member.reason}"
        return None

    def starred(self, members: Any) -> Any:
        """Return a request with secrets replaced by stars; the same object if it has none."""
        return position.replaced(members, self.secret, partial(_stars, []))

    def credentials(self, members: Any) -> list[str]:
        """Return the credentials in a request; nearly always none."""
        found: list[str] = []
        position.replaced(members, self._credential, partial(_stars, found))
        return found


UNLISTED = Members()
"""The table of an endpoint with all members in the key."""


def table(*parts: Iterable[Member]) -> Members:
    """Combine the rows of an endpoint; a later row for a position replaces an earlier one."""
    found = {member.position: member for part in parts for member in part}
    return Members(tuple(found.values()))


def _stars(found: list[str], value: Any) -> Any:
    match value:
        case None | bool() | "":
            return value
        case dict():
            return {name: _stars(found, member) for name, member in value.items()}
        case list():
            return [_stars(found, item) for item in value]
        case str():
            found.append(value)
    return "*"
