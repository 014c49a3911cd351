"""Everything here wants a CUDA device: it runs with `-m gpu`, and not by default."""

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]


def _devices() -> int:
    import torch

    return torch.cuda.device_count()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker("gpu")
            wanted = getattr(getattr(item, "module", None), "DEVICES", 1)
            if wanted > 1 and _devices() < wanted:
                item.add_marker(pytest.mark.skip(reason=f"it needs {wanted} CUDA devices"))


@pytest.fixture
def wait_mode() -> Iterator[Callable[[str], None]]:
    """Set what a call that waits for the device does: "error" or "default"; whatever happens, it ends as "default"."""
    import torch

    def set_mode(mode: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls the mode a prototype
            torch.cuda.set_sync_debug_mode(mode)

    yield set_mode
    set_mode("default")
