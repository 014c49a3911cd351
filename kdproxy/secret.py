"""A string that never shows its value."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Secret:
    """A credential: its repr and its str are stars."""

    _value: str = field(repr=False)

    def reveal(self) -> str:
        """Return the credential."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('*****')"

    __str__ = __repr__
