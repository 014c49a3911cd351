"""What has changed since the attempt that is resumed, and whether that blocks, warns or is allowed. Pure.

Facts are flat: a dotted name (`config.optimizer.lr`, `data.length`, `environment.torch`) and a plain value.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from trainhooks.errors import ConfigInvalid

Facts = Mapping[str, str | int | float | bool | None]
Rules = tuple[tuple[str, "Policy"], ...]

_SHOWN_LENGTH = 60


class Policy(StrEnum):
    """What a difference does."""

    BLOCK = "block"
    """The training does not start."""
    WARN = "warn"
    """It is logged and recorded."""
    ALLOW = "allow"
    """It is recorded."""


DEFAULTS: Rules = (
    ("checkpoints", Policy.BLOCK),
    ("samples", Policy.BLOCK),
    ("model.*", Policy.BLOCK),
    ("data.type", Policy.WARN),
    ("data.*.type", Policy.WARN),
    ("data.*", Policy.BLOCK),
    ("tokenizer", Policy.BLOCK),
    ("config.seed", Policy.BLOCK),
    ("hyperparameters.*", Policy.BLOCK),
    *((f"*{what}*batch_size", Policy.WARN) for what in ("eval", "val", "test", "infer", "generation", "predict")),
    ("*batch_size", Policy.BLOCK),
    ("*.log_*", Policy.ALLOW),
    ("*.logging*", Policy.ALLOW),
    ("*.wandb*", Policy.ALLOW),
    ("*.run_name", Policy.ALLOW),
    ("*.output_dir", Policy.ALLOW),
    ("*.num_workers", Policy.ALLOW),
    ("*.save_*", Policy.ALLOW),
    ("*.checkpoint_*", Policy.ALLOW),
    ("environment.host", Policy.ALLOW),
    ("*", Policy.WARN),
)
"""The first that fits counts. `*` stands for any text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One fact that is not what it was."""

    name: str
    before: Any
    after: Any
    policy: Policy

    def __str__(self) -> str:
        return f"{self.name} was {_shown(self.before)} and is {_shown(self.after)}"


def rules_of(given: Mapping[str, str]) -> Rules:
    """Put the user's rules before the defaults.

    Args:
        given: name or pattern to `block`, `warn` or `allow`; `config.` may be left out.

    Raises:
        ConfigInvalid: another policy.
    """
    wrong = [f"{name!r}: {policy!r}" for name, policy in given.items() if policy not in set(Policy)]
    if wrong:
        raise ConfigInvalid(
            f"drift= has {', '.join(wrong)}.", hint=f"A policy is one of {', '.join(map(repr, map(str, Policy)))}."
        )
    mine = [(name, Policy(policy)) for name, policy in given.items()]
    return (*mine, *((f"config.{name}", policy) for name, policy in mine), *DEFAULTS)


def flatten(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield (dotted name, plain value) of every leaf of nested JSON."""
    match value:
        case Mapping():
            for part, item in value.items():
                yield from flatten(item, f"{name}.{part}")
        case list():
            for number, item in enumerate(value):
                yield from flatten(item, f"{name}.{number}")
        case _:
            yield name, value


def compare(before: Facts, after: Facts, rules: Rules) -> list[Change]:
    """Return what differs, by name.

    Of the configuration also what was added or left out; of anything else only what both attempts know: what is missing
    could perhaps not be found out.
    """
    names = {
        name
        for name in before.keys() | after.keys()
        if name.startswith("config.") or (name in before and name in after)
    }
    return [
        Change(name=name, before=before.get(name), after=after.get(name), policy=policy_of(name, rules))
        for name in sorted(names)
        if before.get(name) != after.get(name)
    ]


def policy_of(name: str, rules: Rules) -> Policy:
    """Return what a difference in a fact does."""
    return next(policy for pattern, policy in rules if fnmatchcase(name, pattern))


def _shown(value: Any) -> str:
    text = "not set" if value is None else repr(value)
    return text if len(text) <= _SHOWN_LENGTH else text[: _SHOWN_LENGTH - 3] + "..."
