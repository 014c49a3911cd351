"""Numbers of a step, in the form that `update_metrics` takes."""

from collections.abc import Mapping
from typing import Any

from trainhooks.core import argument


def calculate_metrics_from_step(
    loss: Any, loss_dict: Mapping[str, Any] | None = None, scheduler: Any = None, as_float: bool = False
) -> tuple[Any, dict[str, Any], float | None]:
    """Return (loss, loss components, learning rate) of a step.

    Tensors are detached and returned as they are: nothing waits for the GPU. With `as_float=True` they become floats,
    which waits for the GPU once for each.

    Args:
        scheduler: anything with `get_last_lr()`, or an optimizer; the first group's rate is taken.
    """
    if loss_dict is not None and not isinstance(loss_dict, Mapping):
        raise argument.wrong("loss_dict=", loss_dict, "a dict of losses by name")
    components = {name: _number(each, as_float) for name, each in (loss_dict or {}).items()}
    return _number(loss, as_float), components, _learning_rate(scheduler)


def _number(each: Any, as_float: bool) -> Any:
    if as_float:
        return float(each)
    return each.detach() if hasattr(each, "detach") else each


def _learning_rate(scheduler: Any) -> float | None:
    if scheduler is None:
        return None
    if hasattr(scheduler, "get_last_lr"):
        return float(scheduler.get_last_lr()[0])
    if not hasattr(scheduler, "param_groups"):
        raise argument.wrong("scheduler=", scheduler, "a scheduler or an optimizer")
    return float(scheduler.param_groups[0]["lr"])


def samples_per_second(samples: int, seconds: float) -> float:
    """Return samples per second; 0 where no time has passed."""
    for name, value in (("samples", samples), ("seconds", seconds)):
        if not argument.is_number(value):
            raise argument.wrong(name, value, "a number")
    return samples / seconds if seconds > 0 else 0.0


def tokens_per_second(samples: int, tokens_per_sample: int, seconds: float) -> float:
    """Return tokens per second of samples that are equally long; 0 where no time has passed."""
    for name, value in (("samples", samples), ("tokens_per_sample", tokens_per_sample)):
        if not argument.is_number(value):
            raise argument.wrong(name, value, "a number")
    return samples_per_second(samples * tokens_per_sample, seconds)
