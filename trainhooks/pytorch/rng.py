"""The random number generators that a training draws from: python, numpy, torch on the CPU, torch on each GPU."""

import random
from typing import Any

import numpy as np
import torch


def capture() -> dict[str, Any]:
    """Return the state of every generator, as new tensors and plain values. Does not wait for the GPU."""
    legacy = np.random.get_state(legacy=False)
    assert isinstance(legacy, dict)
    version, words, gauss_next = random.getstate()
    return {
        "python": [version, list(words), gauss_next],
        "numpy": legacy,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
    }


def restore(state: dict[str, Any]) -> None:
    """Put every generator where `capture` found it; of GPUs those that are here."""
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
    np.random.set_state(state["numpy"])
    torch.set_rng_state(state["torch"])
    for device, each in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(each, device)
