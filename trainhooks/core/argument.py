"""Arguments of public functions, checked where they come in: what is wrong is one sentence with what to write. Pure."""

import json
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat, SupportsIndex, cast

from trainhooks.errors import ConfigInvalid


def is_whole(value: Any, least: int = 0) -> bool:
    """Whether it is a whole number from `least` on; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return False
    try:
        return operator.index(value) >= least
    except TypeError:  # a tensor of several, or of fractions
        return False


def is_number(value: Any, *, least: float = -math.inf) -> bool:
    """Whether it is one finite number, not below `least`; texts, True and False are none."""
    if isinstance(value, bool | str | bytes) or not isinstance(value, SupportsFloat):
        return False
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return False
    return math.isfinite(number) and number >= least


def whole(name: str, value: Any, *, least: int = 0) -> int:
    """Return a whole number.

    Raises:
        ConfigInvalid: it is none, or below `least`.
    """
    if not is_whole(value, least):
        raise wrong(name, value, f"a whole number from {least} on")
    return operator.index(value)


def step(given: Any) -> int:
    """Return a step's number; one that was read from a text or a float is taken where it is whole.

    Raises:
        ConfigInvalid: it is no whole number from 0 on.
    """
    if isinstance(given, str) and given.isascii() and given.isdigit():
        return int(given)
    if isinstance(given, float) and given.is_integer() and given >= 0:
        return int(given)
    return whole("step", given.item() if getattr(given, "shape", None) == () else given)


def json_value(name: str, value: Any) -> Any:
    """Return a value that goes into a JSON file.

    Raises:
        ConfigInvalid: JSON cannot hold it.
    """
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise wrong(name, value, "what JSON can hold") from error
    return value


def texts(name: str, value: Any) -> tuple[str, ...]:
    """Return texts; one by itself will do.

    Raises:
        ConfigInvalid: they are none.
    """
    given = (value,) if isinstance(value, str) else value
    if not isinstance(given, Sequence | set | frozenset) or not all(isinstance(each, str) for each in given):
        raise wrong(name, value, "a text or a tuple of texts")
    return tuple(given)


def numbers(name: str, value: Any) -> dict[str, float]:
    """Return numbers by name, NaN and infinities among them; None: there are none.

    Raises:
        ConfigInvalid: they are none.
    """
    given = {} if value is None else value
    if not isinstance(given, Mapping):
        raise wrong(name, value, "a dict of numbers by name")
    found = {}
    for key, each in given.items():
        try:
            if isinstance(each, str | bytes) or not isinstance(key, str):
                raise TypeError
            found[key] = float(cast(SupportsFloat, each))
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise wrong(f"{name}[{key!r}]", each, "one number") from error
    return found


def wrong(name: str, value: Any, what: str, *, hint: str | None = None) -> ConfigInvalid:
    """Say what an argument is and what it must be."""
    try:
        text = repr(value)
    except Exception:  # a text of its own that fails
        text = f"a {type(value).__name__}"
    shown = text if len(text) <= 80 else f"a {type(value).__name__}"
    return ConfigInvalid(f"{name} is {shown} and must be {what}.", hint=hint or f"Give {what}.")
