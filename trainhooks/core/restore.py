"""Which settings hold when a run is resumed whose optimizer or scheduler is built with others than before. Pure."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from trainhooks.core.argument import wrong
from trainhooks.errors import ConfigInvalid


class Restore(StrEnum):
    """What becomes of an optimizer's or a scheduler's hyperparameters."""

    CHECKPOINT = "checkpoint"
    """The saved ones hold."""
    STATE_ONLY = "state-only"
    """The new ones hold, with the saved moments and counters."""


REQUIRES_GRAD = "requires_grad"
"""The name under which `restore=` says whose flags hold: `live`, or `checkpoint`, the default."""


def requires_live_flags(word: str | None) -> bool:
    """Whether `requires_grad` and train/eval modes stay as the script has set them.

    Raises:
        ConfigInvalid: another word.
    """
    if word not in (None, "live", "checkpoint"):
        raise ConfigInvalid(f"restore= says {word!r} of requires_grad.", hint="Give 'live' or 'checkpoint'.")
    return word == "live"


def modes_of(given: str | Mapping[str, str] | None, names: Iterable[str]) -> dict[str, Restore]:
    """Return the mode of each object that one was given for.

    Args:
        given: one word for all, or a word by name.
        names: of the optimizers, schedulers and objects of plain attributes in `state=`.

    Raises:
        ConfigInvalid: an unknown word or name.
    """
    names = list(names)
    if given is not None and not isinstance(given, str | Mapping):
        raise wrong("restore=", given, "'checkpoint', 'state-only' or a dict of these by name")
    if isinstance(given, str) and given not in set(Restore):
        raise ConfigInvalid(
            f"restore= says {given!r}.",
            hint="Give 'checkpoint' or 'state-only', or restore={'requires_grad': 'live'} for the flags.",
        )
    words = dict.fromkeys(names, given) if isinstance(given, str) else dict(given or {})
    unknown = sorted(words.keys() - set(names))
    strange_words = sorted({str(word) for word in words.values() if word not in set(Restore)})
    if unknown or strange_words:
        strange = f"names {', '.join(unknown)}, no optimizer, scheduler or object of plain attributes in state="
        problem = strange if unknown else f"says {strange_words[0]!r}"
        raise ConfigInvalid(
            f"restore= {problem}.",
            hint=f"Give 'checkpoint' or 'state-only', for all or by name ({', '.join(names) or 'there is none here'}).",
        )
    return {name: Restore(word) for name, word in words.items()}
