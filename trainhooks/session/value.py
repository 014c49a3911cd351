"""What may be recorded as a metric, as it is when it is recorded: nothing that the loop changes later changes a row.

Knows tensors by what they can do, so that torch is loaded only by those who have it anyway.
"""

from collections.abc import Mapping
from typing import Any

from trainhooks.errors import ConfigInvalid

PLAIN = frozenset({float, int, bool, str, type(None)})
"""Types that are recorded as they are."""


def is_on_cuda(value: Any) -> bool:
    """Whether reading the value would wait for a GPU."""
    return getattr(value, "is_cuda", False) is True


def read(name: str, value: Any) -> Any:
    """Return the value as JSON has it: a tensor or numpy scalar as its number, containers copied.

    Reads CPU tensors at once (0.6 us). A tensor of a device that is not CUDA is waited for.

    Raises:
        ConfigInvalid: a tensor or array of more than one element.
    """
    if type(value) in PLAIN:
        return value
    if isinstance(value, Mapping):
        return {str(part): read(f"{name}.{part}", item) for part, item in value.items()}
    if isinstance(value, list | tuple):
        return [read(name, item) for item in value]
    if hasattr(value, "item"):
        require_one(name, value)
        return value.item()
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int):
        return int(value)
    return str(value)


def require_one(name: str, value: Any) -> None:
    """Refuse what is not one number.

    Raises:
        ConfigInvalid: with the shape.
    """
    shape = tuple(getattr(value, "shape", ()))
    if any(length != 1 for length in shape):
        raise ConfigInvalid(
            f"The metric {name} has the shape {shape}.", hint="Give one number, such as value.mean(), or a list."
        )
