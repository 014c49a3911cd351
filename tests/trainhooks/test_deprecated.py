"""Names that earlier releases had still work, with a warning that says the present one."""

import importlib
import sys

import pytest


@pytest.mark.parametrize(
    ("old", "name", "module", "present"),
    [
        ("trainhooks.integrations.witness", "Witness", "trainhooks.integrations.callback_base", "CallbackBase"),
        (
            "trainhooks.pytorch.reader",
            "CheckpointReader",
            "trainhooks.pytorch.checkpoint.reader",
            "CheckpointReader",
        ),
    ],
)
def test_an_old_import_works_and_warns(old: str, name: str, module: str, present: str) -> None:
    sys.modules.pop(old, None)
    with pytest.warns(DeprecationWarning, match=rf"{old}.* is deprecated: import .*{present}"):
        found = importlib.import_module(old)
    assert getattr(found, name) is getattr(importlib.import_module(module), present)
