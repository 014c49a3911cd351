"""Options of the callbacks and functions for trainers that are of the wrong type: one sentence, with what to write."""

from typing import Any

import pytest
from accelerate import Accelerator

from trainhooks.errors import ConfigInvalid
from trainhooks.integrations import accelerate, huggingface, lightning


@pytest.mark.parametrize("make", [huggingface.TrainhooksCallback, lightning.TrainhooksCallback])
@pytest.mark.parametrize(
    "options",
    [
        {"output_dir": 5},
        {"output_dir": ""},
        {"config": [1]},
        {"config": "x"},
        {"grace_seconds": "5"},
        {"grace_seconds": -1},
    ],
    ids=str,
)
def test_an_option_of_a_callback_is_said(make: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigInvalid, match=f"{next(iter(options))}=? is .* Hint: "):
        make(**{"output_dir": "run", **options})


def test_lightnings_callback_needs_a_place() -> None:
    with pytest.raises(ConfigInvalid, match="output_dir is None and must be a path"):
        lightning.TrainhooksCallback(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("call", [accelerate.save_state, accelerate.load_state])
def test_a_session_and_an_accelerator_are_told_apart(call: Any) -> None:
    with pytest.raises(ConfigInvalid, match="accelerator is None and must be an Accelerator"):
        call(None, None)
    with pytest.raises(ConfigInvalid, match="progress is None and must be a session"):
        call(Accelerator(cpu=True), None)
    with pytest.raises(ConfigInvalid, match="accelerator is 5 and must be an Accelerator"):
        accelerate.training_state(5)  # type: ignore[arg-type]
