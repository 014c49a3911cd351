"""What an editor shows: both ways to open a training job spell out the options of the context."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from trainhooks import TrainingProgressContext, setup_progress_tracking, training_progress_context


@pytest.mark.parametrize("way", [training_progress_context, setup_progress_tracking])
def test_each_way_to_open_a_job_takes_what_the_context_takes(way: Callable[..., Any]) -> None:
    assert _parameters(way) == _parameters(TrainingProgressContext)
    assert inspect.Parameter.VAR_KEYWORD not in {kind for _, kind, _ in _parameters(way)}


def _parameters(way: Callable[..., Any]) -> list[tuple[str, Any, Any]]:
    return [(each.name, each.kind, each.default) for each in inspect.signature(way).parameters.values()]
