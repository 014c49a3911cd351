"""The options of `loader()`, checked before anything is made of them."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from multiprocessing import get_all_start_methods
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import DataLoader

from trainhooks.core.argument import is_number, is_whole, wrong
from trainhooks.errors import ConfigInvalid

_OWN = ("rank", "world", "replays")
_FLAGS = ("shuffle", "drop_last", "pin_memory", "persistent_workers", "replays")


def _is_flag(value: Any) -> bool:
    return value is None or isinstance(value, bool) or type(value).__name__ == "bool"  # numpy's


def _is_order(value: Any) -> bool:
    """Whether it can be iterated anew for each epoch."""
    return value is None or (hasattr(value, "__iter__") and not hasattr(value, "__next__"))


_RULES: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "batch_size": (lambda value: value is None or is_whole(value, 1), "a whole number from 1 on, or None"),
    "num_workers": (is_whole, "a whole number from 0 on"),
    "prefetch_factor": (lambda value: value is None or is_whole(value, 1), "a whole number from 1 on, or None"),
    "timeout": (lambda value: is_number(value, least=0), "a number of seconds from 0 on"),
    "collate_fn": (lambda value: value is None or callable(value), "a function of a list of samples"),
    "worker_init_fn": (lambda value: value is None or callable(value), "a function of a worker's number"),
    "sampler": (_is_order, "an object that can be iterated again for each epoch"),
    "batch_sampler": (_is_order, "an object that can be iterated again for each epoch, and gives lists of indices"),
    "multiprocessing_context": (
        lambda value: value is None or isinstance(value, BaseContext) or value in get_all_start_methods(),
        "'fork', 'spawn' or 'forkserver'",
    ),
    "rank": (is_whole, "a whole number from 0 on"),
    "world": (lambda value: is_whole(value, 1), "a whole number from 1 on"),
    **dict.fromkeys(_FLAGS, (_is_flag, "True or False")),
}


def check(options: Mapping[str, Any]) -> None:
    """Refuse what no loader takes.

    Raises:
        ConfigInvalid: an unknown option, a value that cannot be used, or two that do not go together.
    """
    known = [*inspect.signature(DataLoader.__init__).parameters, *_OWN]
    known = [name for name in known if name not in ("self", "dataset", "generator", "in_order")]
    for name, value in options.items():
        if name in ("generator", "in_order"):  # refused with words of their own
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigInvalid(
                f"loader() knows no option {name!r}.",
                hint=f"Do you mean {near[0]!r}?" if near else f"It takes those of DataLoader: {', '.join(known)}.",
            )
        is_good, what = _RULES.get(name, (lambda value: True, ""))
        if not is_good(value):
            raise wrong(f"loader({name}=)", value, what)
    if options.get("num_workers", 0) == 0:
        for name in ("prefetch_factor", "persistent_workers"):
            if options.get(name):
                raise ConfigInvalid(f"loader({name}=) needs workers.", hint="Give num_workers=1 or more, or leave it.")
    rank, world = options.get("rank", 0), options.get("world", 1)
    if "rank" in options and rank >= world:
        raise ConfigInvalid(f"Rank {rank} is none of {world}.", hint="Give rank= from 0 to world - 1, and world=.")
