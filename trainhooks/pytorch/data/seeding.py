"""Random numbers of samples: each under a seed of its own, the training's own generators untouched.

python's `random`, numpy's legacy generator and torch's CPU generator are seeded. Those of GPUs are not: what a data set
draws there comes from the training's own generators, which checkpoints hold.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.data import get_worker_info


def seed_all(seed: int) -> None:
    """Seed the generators of this process for one sample.

    `torch.manual_seed` seeds every kind of accelerator too and takes 150 us and more; its CPU generator alone takes 2.
    `torch.initial_seed()` returns `seed` until the next call.
    """
    random.seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)  # what numpy's legacy generator takes
    torch.default_generator.manual_seed(seed)


@contextmanager
def kept_apart() -> Iterator[None]:
    """Put the generators back afterwards, in the main process; a loader's workers have no others to protect."""
    if get_worker_info() is not None:
        yield
        return
    python, numpy, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
