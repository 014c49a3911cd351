"""Everything that can be set, and where each value came from."""

from kdproxy.settings.load import Loaded, describe, load
from kdproxy.settings.parse import UpstreamSettings
from kdproxy.settings.tree import Settings

__all__ = ["Loaded", "Settings", "UpstreamSettings", "describe", "load"]
