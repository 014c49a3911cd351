"""Hypothesis in this folder: no deadline, since a busy machine is not a failure."""

from hypothesis import settings

settings.register_profile("kdproxy", deadline=None)
settings.load_profile("kdproxy")
