"""One thing of a resumed training that is not what it was, with both values. Pure."""

from dataclasses import dataclass
from typing import Any

_LONGEST = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What differs between what was saved or recorded and what is there now."""

    what: str
    """Which thing, such as `optimizer.state.0.exp_avg` or `loss`."""
    before: str
    after: str

    def __str__(self) -> str:
        """Say both values."""
        return f"{self.what}: was {self.before}, is {self.after}"


def differ(what: str, before: Any, after: Any) -> Difference | None:
    """Compare two values by their text, so that every bit of a float counts and NaN equals NaN."""
    one, other = spelled(before), spelled(after)
    return None if one == other else Difference(what=what, before=shortened(one), after=shortened(other))


def spelled(value: Any) -> str:
    """Return a value's text; of a number that metrics.jsonl spells, the same one."""
    if isinstance(value, float):
        return {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}.get(text := repr(value), text)
    return str(value)


def shortened(text: str) -> str:
    """Return a text of at most 60 characters."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
