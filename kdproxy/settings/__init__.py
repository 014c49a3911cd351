"""Everything that can be set, and where each value came from."""

from kdproxy.settings.load import Loaded, describe, load, survey
from kdproxy.settings.tree import Settings
from kdproxy.settings.upstream import UpstreamSettings

__all__ = ["Loaded", "Settings", "UpstreamSettings", "describe", "load", "survey"]
