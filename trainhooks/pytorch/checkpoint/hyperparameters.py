"""Settings of optimizers and schedulers as the script builds them, and what becomes of them when a run is resumed.

A checkpoint holds the learning rate and the horizon of the run that it was saved in. Somebody who changes them in the
script wants either the new ones or the saved ones, and only he knows which: `restore=` says it.
"""

import warnings
from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from trainhooks.core import restore
from trainhooks.core.restore import Restore
from trainhooks.errors import ConfigInvalid, StateUnsupported
from trainhooks.pytorch.checkpoint.plain_state import PlainState

_COUNTERS = frozenset(
    {
        "last_epoch",
        "_step_count",
        "_last_lr",
        "_is_initial",
        "_get_lr_called_within_step",
        "T_cur",
        "best",
        "num_bad_epochs",
        "cooldown_counter",
        "mode_worse",
        "_schedulers",
        "_milestones_done",
    }
)
"""Of a scheduler's state: where it is, not how it was built."""


def facts_of(objects: Mapping[str, Any]) -> dict[str, str | int | float | bool | None]:
    """Describe every optimizer and scheduler as it was built, before anything is restored."""
    facts: dict[str, str | int | float | bool | None] = {}
    for name, each in objects.items():
        if isinstance(each, Optimizer):
            for at, group in enumerate(each.param_groups):
                settings = {key: value for key, value in group.items() if key != "params"}
                if "initial_lr" in settings:  # a scheduler has set `lr` already
                    settings["lr"] = settings.pop("initial_lr")
                facts.update(_plain(settings, f"hyperparameters.{name}.{at}"))
        elif isinstance(each, LRScheduler):
            facts[f"hyperparameters.{name}.class"] = type(each).__qualname__
            settings = {key: value for key, value in each.state_dict().items() if key not in _COUNTERS}
            facts.update(_plain(settings, f"hyperparameters.{name}"))
        elif isinstance(each, PlainState):
            facts.update(_plain(each.settings, f"hyperparameters.{name}"))
    return facts


def _plain(value: Any, name: str) -> Iterator[tuple[str, str | int | float | bool | None]]:
    match value:
        case Tensor() if value.numel() == 1:
            yield name, value.item()
        case bool() | int() | float() | str() | None:
            yield name, value
        case Mapping():
            for key, item in value.items():
                yield from _plain(item, f"{name}.{key}")
        case list() | tuple():
            for at, item in enumerate(value):
                yield from _plain(item, f"{name}.{at}")


def modes_of(given: str | Mapping[str, str] | None, objects: Mapping[str, Any]) -> dict[str, Restore]:
    """Return whose settings hold, by name. A scheduler and its optimizer go together: one word does for both.

    Raises:
        ConfigInvalid: an unknown word or name, or two words for a scheduler and its optimizer.
    """
    named = {name: each for name, each in objects.items() if isinstance(each, Optimizer | LRScheduler | PlainState)}
    modes = restore.modes_of(given, named)
    for name, each in named.items():
        if isinstance(each, LRScheduler):
            owner = next((other for other, optimizer in named.items() if optimizer is each.optimizer), None)
            pair = {modes[part] for part in (name, owner) if part in modes}
            if owner is None or not pair:
                continue
            if len(pair) > 1:
                raise ConfigInvalid(
                    f"restore= says one thing of {name} and another of its optimizer {owner}.",
                    hint="Learning rates come from both: give them the same word.",
                )
            modes[name] = modes[owner] = pair.pop()
    return modes


def with_live_settings(optimizer: Optimizer, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer's saved state with the live settings: moments and counts are the saved ones."""
    live = optimizer.state_dict()["param_groups"]
    groups = [
        {**deepcopy({name: value for name, value in new.items() if name != "params"}), "params": old["params"]}
        for old, new in zip(saved["param_groups"], live, strict=True)
    ]
    return {**saved, "param_groups": groups}


def advance(scheduler: LRScheduler, steps: int) -> None:
    """Bring a scheduler, as the script has built it, to where it is after so many of its own steps."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that the optimizer has not stepped in this process
        for _ in range(steps):
            scheduler.step()


def built_rates(objects: Mapping[str, Any]) -> dict[str, list[float]]:
    """Return the learning rates of each optimizer as the script has built it, by group."""
    return {
        name: [float(group.get("initial_lr", group["lr"])) for group in each.param_groups]
        for name, each in objects.items()
        if isinstance(each, Optimizer) and all("lr" in group for group in each.param_groups)
    }


def carry_over(
    scheduler: ReduceLROnPlateau, saved: Mapping[str, Any], *, rates: list[Any], built: list[float] | None
) -> None:
    """Give a plateau scheduler under new settings what the saved one had seen: its best value and its counts.

    What it has reduced already stays reduced, by the same factor of the learning rate that is given now, and not below
    the new `min_lr`.

    Args:
        rates: the saved learning rates.
        built: those that the saved attempt began with; None: a release before did not keep them.

    Raises:
        StateUnsupported: the other `mode`, or the reductions are not known.
    """
    if saved["mode"] != scheduler.mode:
        raise StateUnsupported(
            f"A ReduceLROnPlateau with mode={saved['mode']!r} has seen the best value of another kind than one with"
            f" mode={scheduler.mode!r} looks for.",
            hint="Give restore= 'checkpoint', or begin a new run in another directory.",
        )
    if built is None:
        raise StateUnsupported(
            "How often a ReduceLROnPlateau has reduced the learning rate is not in a checkpoint of earlier releases.",
            hint="Give restore= 'checkpoint' for it and its optimizer, and set the optimizer's lr yourself afterwards.",
        )
    for name in ("best", "num_bad_epochs", "last_epoch"):
        setattr(scheduler, name, saved[name])
    scheduler.cooldown_counter = min(saved["cooldown_counter"], scheduler.cooldown)
    groups = scheduler.optimizer.param_groups
    for group, rate, began, least in zip(groups, rates, built, scheduler.min_lrs, strict=False):
        now = float(group["lr"])
        new = float(rate) if now == began else now * float(rate) / began if began else now
        new = max(new, min(least, now))
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(new)
        else:
            group["lr"] = new
    scheduler._last_lr = [group["lr"] for group in groups]


def steps_of(saved: Mapping[str, Any]) -> int:
    """Return how often a saved scheduler had stepped."""
    return max(0, int(saved.get("last_epoch", 0)))
