"""Deprecated name of `trainhooks.pytorch.checkpoint.reader`."""

import warnings

from trainhooks.pytorch.checkpoint.reader import CheckpointReader

__all__ = ["CheckpointReader"]

warnings.warn(
    "trainhooks.pytorch.reader is deprecated: import CheckpointReader from trainhooks.pytorch.checkpoint.reader.",
    DeprecationWarning,
    stacklevel=2,
)
