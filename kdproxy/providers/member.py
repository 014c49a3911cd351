"""What each member of a request means for its key: one declarative table an endpoint. docs/keys.md shows them whole.

A member that no row names is in the key. Rows give exact positions (core/position), a reason, and the source with the
date on which it was read.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, NamedTuple

from kdproxy.core import position
from kdproxy.core.position import Positions


class Standing(StrEnum):
    """Where a member stands."""

    IN = "in"
    """In the key, as any member that no row names: listed because it looks as if it were not."""
    OUT = "out"
    """Cannot change the answer."""
    CREDENTIAL = "credential"
    """Out, and neither stored nor logged: stars stand in the stored request."""
    HIDDEN = "hidden"
    """In the key, and stars in the stored request: it may hold a credential among what changes the answer."""
    HOSTED = "hosted"
    """Not pure: something runs at the provider and sees the world of that moment. Kept with `allow_hosted_tools`."""
    STATE = "state"
    """Not pure: the question depends on what the provider holds, or asks for no answer. Never kept."""


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
    """Of what is not pure: whether a value is; a text names it."""


def rows(standing: Standing, reason: str, source: str, *positions: str) -> tuple[Member, ...]:
    """Make rows that share all but the position."""
    return tuple(Member(each, standing, reason, source) for each in positions)


@dataclass(frozen=True, slots=True)
class Members:
    """The table of one endpoint, made ready."""

    table: tuple[Member, ...] = ()
    out: Positions = field(init=False)
    """What the key leaves out."""
    secret: Positions = field(init=False)
    """What the stored request has stars for."""
    hidden: tuple[str, ...] = field(init=False)
    """Positions in the key that the stored request has stars for."""
    impure: tuple[Member, ...] = field(init=False)
    _impure: Mapping[str, tuple[Member, ...]] = field(init=False)
    """The same by the outermost member that each stands in."""
    out_fields: frozenset[str] = field(init=False)
    """Fields of a form that the key leaves out."""

    _credential: Positions = field(init=False)

    def __post_init__(self) -> None:
        def having(*standings: Standing) -> tuple[Member, ...]:
            return tuple(member for member in self.table if member.standing in standings)

        def tree(*standings: Standing) -> Positions:
            return position.tree(member.position for member in having(*standings))

        # frozen: there is no other way to fill derived fields
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
        """Return why a request is not a pure question, or None."""
        if self._impure.keys().isdisjoint(members):
            return None
        for name, rules in self._impure.items():
            if name not in members:
                continue
            for member in rules:
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
        """Return a request with stars for what is secret; the request itself where nothing is."""
        return position.replaced(members, self.secret, partial(_stars, []))

    def credentials(self, members: Any) -> list[str]:
        """Return the texts of the credentials that a request holds; nearly always none."""
        found: list[str] = []
        position.replaced(members, self._credential, partial(_stars, found))
        return found


UNLISTED = Members()
"""The table of an endpoint all of whose members are in the key."""


def table(*parts: Iterable[Member]) -> Members:
    """Put the rows of an endpoint together; a later row for a position replaces an earlier."""
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
