"""Whether the gradients that an optimizer has just used still matter, as its loop has shown so far.

Most loops drop gradients between two steps (`zero_grad()` makes them None), and then a checkpoint need not hold their
values. Others zero them in place, accumulate over steps, or step before they call backward. Versions of tensors prove
nothing (`.data`, captured graphs), so what counts is the object: after every earlier step the gradient at the next one
was a new tensor. One exception, and the values are kept for good.
"""

import weakref
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

_PROOFS = 2
"""Pairs of steps that have shown the habit before it is believed."""


class GradientHabit:
    """Watches one optimizer's steps."""

    def __init__(self, optimizer: Optimizer) -> None:
        self._used: dict[int, weakref.ref[Tensor]] = {}
        """The gradient that each parameter had at the last step, by the parameter's id; the gradient itself is weak."""
        self._proofs = 0
        self._is_broken = False
        self._optimizer = weakref.ref(optimizer)
        optimizer.register_step_pre_hook(self._before_step)
        optimizer.register_step_post_hook(self._after_step)

    def is_spent(self, parameter: Tensor) -> bool:
        """Whether a parameter's gradient was used by the last step, and will be dropped before the next, as ever."""
        if self._is_broken or self._proofs < _PROOFS:
            return False
        used = self._used.get(id(parameter))
        return used is not None and used() is parameter.grad

    def _parameters(self) -> list[Tensor]:
        optimizer = self._optimizer()
        return [] if optimizer is None else [each for group in optimizer.param_groups for each in group["params"]]

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self._is_broken or not self._used:
            return
        for parameter in self._parameters():
            used = self._used.get(id(parameter))
            if used is not None and parameter.grad is not None and used() is parameter.grad:
                self._is_broken = True
                self._used.clear()
                return
        self._proofs += 1

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if not self._is_broken:
            self._used = {
                id(parameter): weakref.ref(parameter.grad)
                for parameter in self._parameters()
                if parameter.grad is not None
            }
