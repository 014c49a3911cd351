"""Deprecated name of `trainhooks.integrations.callback_base`."""

import warnings

from trainhooks.integrations.callback_base import CallbackBase as Witness

__all__ = ["Witness"]

warnings.warn(
    "trainhooks.integrations.witness.Witness is deprecated: import trainhooks.integrations.callback_base.CallbackBase.",
    DeprecationWarning,
    stacklevel=2,
)
