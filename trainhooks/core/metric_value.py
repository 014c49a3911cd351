"""What may be recorded as a metric, as type checkers and editors see it."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeAlias


class SupportsItem(Protocol):
    """A number in a box of one element: a tensor of torch, an array or scalar of numpy."""

    def item(self) -> Any:
        """Return the number."""


MetricValue: TypeAlias = (
    "bool | int | float | str | SupportsItem | Sequence[MetricValue] | Mapping[str, MetricValue] | None"
)
"""A number, a text, a tensor of one element, or lists and dicts of them. What is None is left out."""
