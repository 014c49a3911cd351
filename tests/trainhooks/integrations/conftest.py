"""Trainers take seconds to import: jobs are forked from one process that has them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def _trainers(zygote_with: Callable[..., Any]) -> Any:
    return zygote_with("transformers.trainer", "trl.trainer.sft_trainer", "datasets", "pytorch_lightning", "accelerate")


@pytest.fixture
def trainers(_trainers: Any) -> Iterator[Any]:
    """A zygote with the trainers imported; what still runs at the end is killed."""
    yield _trainers
    _trainers.end_jobs()
