"""The one place that reads torch's own files: never anything but data, whatever is in them."""

import logging
import pickle
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.torch_version import TorchVersion

from trainhooks.errors import TrainhooksError

log = logging.getLogger("trainhooks")

_SAFE_SINCE = TorchVersion("2.10")
"""CVE-2026-24747: before, a crafted file corrupts memory in spite of `weights_only=True`."""


class TorchFileRefused(TrainhooksError):
    """A torch file is damaged, or holds more than data."""

    default_code = "torch_file_refused"


def read(path: Path, *, is_mapped: bool = False) -> Any:
    """Read a file that `torch.save` wrote, onto the CPU, with `weights_only=True`.

    Args:
        is_mapped: leave the numbers of its tensors on the disk until they are asked for.

    Raises:
        TorchFileRefused: it holds objects that only free pickle could make, is damaged, or cannot be read.
    """
    _warn_of(torch.__version__)
    try:
        is_mapped = is_mapped and zipfile.is_zipfile(path)  # the old form cannot be mapped
        return torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except pickle.UnpicklingError as error:
        raise TorchFileRefused(
            f"{path.name} holds more than tensors and plain values, and reading it would execute what is in it"
            f" ({_first_line(error)}).",
            hint="If you trust its writer, load it once with torch.load(weights_only=False) and save a state_dict.",
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, zipfile.BadZipFile) as error:
        raise TorchFileRefused(
            f"{path.name} is damaged or no torch file ({_first_line(error)}).",
            hint="An earlier checkpoint may be whole.",
        ) from error


@cache
def _warn_of(version: str) -> None:
    """Once for a version. Our own checkpoints are safetensors and JSON: they are not read by it."""
    if TorchVersion(version) < _SAFE_SINCE:
        log.warning(
            "torch %s can be attacked by a torch file in spite of weights_only=True (CVE-2026-24747): "
            "read only files that you trust, or install torch 2.10 or later",
            version,
        )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
